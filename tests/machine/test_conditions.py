"""What else the machine did: CPU time from /proc/stat, and a card told by a library that the test puts in."""

import sys
import types

import pytest

from harness.machine import conditions as c
from harness.machine.nvml import Card, CardReading, open_card
from harness.records import CardConditions, Conditions

LINE = "cpu  100 20 30 800 10 5 5 30 0 0"


def test_the_cpus_times_are_read_in_seconds():
    assert c.cpu_times(LINE, 100, 0.5) == c.CpuTimes(busy=1.6, idle=8.1, stolen=0.3, own=0.5)


@pytest.mark.parametrize("line", ["", "cpu", "intr 1 2 3 4 5 6 7 8", "cpu 1 2 3", "cpu a b c d e f g h"])
def test_another_line_is_none(line):
    assert not line or c.cpu_times(line, 100, 0.0) is None


def test_a_system_without_proc_has_no_cpu_times(monkeypatch, tmp_path):
    monkeypatch.setattr(c, "PROC_STAT", tmp_path / "none")
    assert c.read_cpu(frozenset()) is None


def test_this_run_is_no_other():
    import os

    family = c.family_of(os.getpid())
    assert {os.getpid(), os.getppid()} <= family
    assert c.other_processes(frozenset({os.getpid(), 999_999_999}), family, os.getpid()) == 1
    assert c.other_processes(frozenset({os.getpid()}), family, os.getpid()) == 0
    assert c.other_processes(frozenset({4}), family, os.getpid()) is None  # numbered as the host does
    assert c.other_processes(None, family, os.getpid()) is None
    assert c.family_of(999_999_999) == {999_999_999}


def sources(*times, allowed=2):
    readings = iter(times)
    return c.Sources(cpu=lambda family: next(readings), allowed=lambda: allowed, load=lambda: 1.5, n_cpus=2)


def watched(*times, **more):
    watch = c.Watch(sources=sources(*times), **more)
    watch.begin()
    return watch.seen()


def test_shares_are_of_the_time_of_all_cpus():
    seen = watched(c.CpuTimes(10, 10, 1, 5), c.CpuTimes(16, 12, 3, 9))
    assert (seen.stolen, seen.others, seen.load) == (pytest.approx(0.2), pytest.approx(0.2), 1.5)


@pytest.mark.parametrize("times", [(None, None), (c.CpuTimes(1, 1, 1, 1), None), (c.CpuTimes(1, 1, 1, 1),) * 2])
def test_what_cannot_be_told_is_none(times):
    seen = watched(*times)
    assert (seen.stolen, seen.others) == (None, None)
    assert c.condition_flags(seen) == ()


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({}, ()),
        ({"n_cpus_allowed": 1}, ("pinned",)),
        ({"stolen": 0.02}, ("stolen_cpu",)),
        ({"stolen": 0.005}, ()),
        ({"others": 0.3}, ("busy_machine",)),
        ({"others": 0.2}, ()),
        ({"spinning": ("OMP_WAIT_POLICY=active",)}, ("spinning_threads",)),
        ({"card": CardConditions(uuid="GPU-1")}, ()),
        ({"card": CardConditions(uuid="GPU-1", n_other_processes=0)}, ()),
        ({"card": CardConditions(uuid="GPU-1", n_other_processes=2)}, ("shared_gpu",)),
        ({"card": CardConditions(uuid="GPU-1", throttle_reasons=("sw_power_cap",))}, ("power_capped",)),
    ],
)
def test_doubts_of_a_machine_have_names(changes, flags):
    assert c.condition_flags(Conditions(**{"n_cpus": 2, "n_cpus_allowed": 2, **changes})) == flags


@pytest.mark.parametrize(
    ("options", "environment", "found"),
    [
        ({"session.intra_op.allow_spinning": "0"}, {}, ()),
        ({"session.intra_op.allow_spinning": "1"}, {}, ("session.intra_op.allow_spinning=1",)),
        ({}, {"OMP_WAIT_POLICY": "ACTIVE"}, ("OMP_WAIT_POLICY=active",)),
        ({}, {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": ""}, ()),
        ({}, {"KMP_BLOCKTIME": "200"}, ("KMP_BLOCKTIME=200",)),
    ],
)
def test_settings_that_let_threads_spin_are_read_back(options, environment, found):
    assert c.spinning_settings(options, environment) == found


# -- the card


class Refused(Exception):
    pass


class FakeNvml:
    """A library of one card; `refuses`: functions that raise, `lacks`: functions that it has not."""

    NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = 1, 0
    NVMLError = Refused

    def __init__(self, *, refuses=(), lacks=(), pids=(1,)):
        self.refuses, self.lacks, self.pids = refuses, lacks, pids
        self.clock, self.bits = 1_980, 0x1

    def __getattribute__(self, name):
        if name.startswith("nvml"):
            if name in self.lacks:
                raise AttributeError(name)
            if name in self.refuses:

                def refuse(*arguments):
                    raise Refused(name)

                return refuse
        return object.__getattribute__(self, name)

    def nvmlInit(self):
        self.is_open = True

    def nvmlDeviceGetHandleByUUID(self, uuid):
        if uuid != "GPU-1":
            raise Refused(uuid)
        return "handle"

    def nvmlDeviceGetClockInfo(self, handle, kind):
        return self.clock

    def nvmlDeviceGetTemperature(self, handle, kind):
        return 41

    def nvmlDeviceGetPowerUsage(self, handle):
        return 112_500

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle):
        return self.bits

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle):
        return 0x8

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        return 7_000

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        return [types.SimpleNamespace(pid=pid) for pid in self.pids]


ASKED = [name for name in vars(FakeNvml) if name.startswith("nvmlDeviceGet") and "UUID" not in name]


def test_a_card_is_read():
    card = Card(FakeNvml(), "handle", "GPU-1")
    assert card.reading() == CardReading(1_980.0, 41.0, 112.5, frozenset({"gpu_idle"}))
    assert (card.energy_mj(), card.power_w(), card.process_ids()) == (7_000, 112.5, {1})


@pytest.mark.parametrize("how", ["refuses", "lacks"])
def test_what_a_card_does_not_say_is_none(how):
    card = Card(FakeNvml(**{how: ASKED}), "handle", "GPU-1")
    assert card.reading() == CardReading()
    assert (card.energy_mj(), card.power_w(), card.process_ids()) == (None, None, None)


def test_an_older_library_names_its_reasons_otherwise():
    card = Card(FakeNvml(lacks=["nvmlDeviceGetCurrentClocksEventReasons"]), "handle", "GPU-1")
    assert card.reading().reasons == {"hw_slowdown"}


@pytest.mark.parametrize(
    ("bits", "is_slowed"),
    [(0x1, False), (0x4, False), (0x8, True), (0x20, True), (0x40, True), (0x80, True), (0, False)],
)
def test_slowdowns_are_told_from_other_reasons(bits, is_slowed):
    nvml = FakeNvml()
    nvml.bits = bits
    assert Card(nvml, "handle", "GPU-1").reading().is_slowed == is_slowed


@pytest.mark.parametrize(
    ("uuid", "library", "is_found"),
    [
        ("GPU-1", FakeNvml(), True),
        ("GPU-2", FakeNvml(), False),
        ("", FakeNvml(), False),
        ("GPU-1", FakeNvml(refuses=["nvmlInit"]), False),
        ("GPU-1", None, False),  # not installed
    ],
)
def test_a_card_is_opened_or_done_without(monkeypatch, uuid, library, is_found):
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert (open_card(uuid) is not None) == is_found


def test_a_cpu_has_no_card(monkeypatch):
    monkeypatch.setattr(c, "probe_driver", lambda: types.SimpleNamespace(uuids=("GPU-1",)))
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())
    assert c.card_of("cpu") is None
    assert c.card_of("cuda:0").uuid == "GPU-1"
    assert c.card_of("cuda:1") is None
    assert c.card_of("npu") is None


def card_watch(readings):
    """Watch a card that gives these (clock, bits) after each round."""
    nvml = FakeNvml()
    watch = c.Watch(Card(nvml, "handle", "GPU-1"), sources=sources(None, None))
    watch.begin()
    for nvml.clock, nvml.bits in readings:
        watch.after_round()
    return watch


def test_a_card_is_summed_up():
    seen = card_watch([(1_980, 1), (1_965, 5), (1_000, 0)]).seen().card
    assert (seen.uuid, seen.n_readings) == ("GPU-1", 3)
    assert (seen.sm_clock_mhz, seen.sm_clock_low_mhz, seen.temperature_c, seen.power_w) == (1_965, 1_000, 41, 112.5)
    assert seen.throttle_reasons == ("sw_power_cap",)


@pytest.mark.parametrize(
    ("readings", "slowed"),
    [
        ([(1_980, 0)] * 8, ()),
        ([(1_980, 0)] * 3 + [(1_980, 0x40)] + [(1_980, 0)] * 4, (3,)),
        ([(1_980, 0)] * 6 + [(1_490, 0), (1_480, 0)], (7,)),  # 75 % of the median is 1,485
        ([], ()),
    ],
)
def test_rounds_on_a_slowed_card_are_named(readings, slowed):
    assert card_watch(readings).slowed_rounds() == slowed


def test_a_card_without_a_clock_is_judged_by_its_reasons():
    nvml = FakeNvml(refuses=["nvmlDeviceGetClockInfo"])
    watch = c.Watch(Card(nvml, "handle", "GPU-1"), sources=sources(None, None))
    watch.begin()
    for nvml.bits in (0, 0x80, 0):
        watch.after_round()
    assert watch.slowed_rounds() == (1,)
    assert watch.seen().card.sm_clock_mhz is None
