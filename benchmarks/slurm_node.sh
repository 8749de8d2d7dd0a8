#!/usr/bin/env bash
# One real night under Slurm: this machine as a cluster of one node, docs/fleet/slurm.sh as an array, then merging.
#
#     apt-get install slurm-wlm munge
#     bash benchmarks/slurm_node.sh OUT        # as root, in a virtual environment with .[cpu]; leaves OUT/night
#
# Shard 1 is requeued while it runs, as a node that was taken away would have it: its second try counts its tries.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "$1")
[ ! -e "$out" ] || { echo "$out exists already" >&2; exit 2; }
mkdir -p "$out" /run/munge /run/slurm
export SLURM_CONF=$out/slurm.conf

cat > "$SLURM_CONF" <<CONF
ClusterName=one
SlurmctldHost=$(hostname)
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
SlurmctldPidFile=$out/slurmctld.pid
SlurmdPidFile=$out/slurmd.pid
SlurmctldLogFile=$out/slurmctld.log
SlurmdLogFile=$out/slurmd.log
StateSaveLocation=$out/state
SlurmdSpoolDir=$out/spool
NodeName=$(hostname) CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
CONF
chown munge: /run/munge
pgrep -x munged > /dev/null || runuser -u munge -- /usr/sbin/munged
/usr/sbin/slurmctld
/usr/sbin/slurmd
trap 'kill $(cat "$out"/*.pid) 2> /dev/null' EXIT

type=$(harness doctor | sed -n 's/^ *type of device in records and fleet.toml: \([^;]*\);.*/\1/p')
cat > "$out/fleet.toml" <<FLEET
[run]
precision = ["fp32", "int8"]
baseline = "ignore"

[[device]]
name = "here"
type = "$type"
run = { backend = ["ort"], model = ["mlp", "lenet5"] }
FLEET
harness plan --fleet "$out/fleet.toml" -o shards.json
trap 'kill $(cat "$out"/*.pid) 2> /dev/null; rm -rf shards.json shards' EXIT
# The node is this machine, so that it sees this checkout and this environment.
job=$(sbatch --parsable --array=0-1 --time=45 --output="$out/shard-%a.log" docs/fleet/slurm.sh)
echo "job $job"
is_requeued=""
while squeue --noheader --jobs "$job" 2> /dev/null | grep -q .; do
    if [ -z "$is_requeued" ] && squeue --noheader --states=RUNNING --jobs "${job}_1" 2> /dev/null | grep -q .; then
        sleep 8 # it has begun to measure
        scontrol requeue "${job}_1"
        is_requeued=yes
    fi
    sleep 2
done
sinfo --version
harness merge shards --shard-plan shards.json -o "$out/night"
