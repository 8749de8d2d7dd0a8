"""The joint gate: how often it alarms on clean nights, and how small a loss of many cases it sees.

    python benchmarks/joint_loss.py [--models lenet5 mlp] [--nights 1000] [--cases 8]

A clean night: every case is a pair of engines whose weights carry noise of the size of rounding to INT8, on half of the
images, drawn anew each night. The cases of a night are alike, as engines of one model are: the same images near a
decision boundary move in all of them. A planted night: of every case some images more are lost, other ones in each.
Takes about a minute on two cores.
"""

import argparse
import platform
from pathlib import Path

import numpy as np
import onnxruntime
from accuracy_verdicts import N_IMAGES, N_VARIANTS, ROOT, Network, Scores

from harness.models import find_model
from harness.stats import clopper_pearson_interval, joint_loss_p, mcnemar_p

ALPHAS = (0.001, 0.01, 0.05)
LOSSES = (2, 4, 6, 8, 11)  # images of every case
PLANTED_NIGHTS = 100


def net_of_night(variants: list[Scores], n_cases: int, generator: np.random.Generator) -> np.ndarray:
    """Return int[cases, images]: 1 lost, -1 gained."""
    images = generator.permutation(N_IMAGES)[: N_IMAGES // 2]
    nets = []
    for _ in range(n_cases):
        before, now = generator.choice(len(variants), 2, replace=False)
        nets.append(variants[before].hits[images].astype(int) - variants[now].hits[images].astype(int))
    return np.stack(nets)


def with_loss(nets: np.ndarray, n_lost: int, generator: np.random.Generator) -> np.ndarray:
    """Lose more images of every case, among those that did not change."""
    planted = nets.copy()
    for net in planted:
        net[generator.choice(np.flatnonzero(net == 0), n_lost, replace=False)] = 1
    return planted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["lenet5", "mlp"])
    parser.add_argument("--nights", type=int, default=1_000)
    parser.add_argument("--cases", type=int, default=8)
    arguments = parser.parse_args()
    print(
        f"{N_IMAGES // 2} of {N_IMAGES} images a night, {arguments.cases} cases, onnxruntime {onnxruntime.__version__},"
    )
    print(f"{platform.machine()}\n")
    for name in arguments.models:
        network = Network(find_model(name, Path(ROOT) / "models"), threads=1)
        variants = [network.scores(network.rounded("int8", 1_000 + k)) for k in range(N_VARIANTS)]
        generator = np.random.default_rng(11)
        nights = [net_of_night(variants, arguments.cases, generator) for _ in range(arguments.nights)]
        changed = np.mean([np.count_nonzero(net) / arguments.cases for net in nights])
        p_values = np.array([joint_loss_p(net.sum(axis=0)) if net.sum() > 0 else 1.0 for net in nights])
        pooled = np.array([mcnemar_p(int((n > 0).sum()), int((n < 0).sum())) if n.sum() > 0 else 1.0 for n in nights])
        print(f"{name}: {changed:.1f} images change a case of a clean night\n")
        print("| alpha | false alarms of the joint test (95 % interval) | as if cases were independent |")
        print("|---|---|---|")
        for alpha in ALPHAS:
            alarms, naive = int((p_values <= alpha).sum()), int((pooled <= alpha).sum())
            low, high = clopper_pearson_interval(alarms, len(nights), 0.95)
            print(f"| {alpha} | {alarms} of {len(nights)} ({100 * low:.2f} to {100 * high:.2f} %) | {naive} |")
        print("\n| lost more in every case | seen by the joint test | a case alone is seen |\n|---|---|---|")
        for n_lost in LOSSES:
            planted = [with_loss(net, n_lost, generator) for net in nights[:PLANTED_NIGHTS]]
            seen = sum(joint_loss_p(net.sum(axis=0)) <= ALPHAS[0] and net.sum() > 0 for net in planted)
            alone = np.mean(
                [mcnemar_p(int((c > 0).sum()), int((c < 0).sum())) <= ALPHAS[0] for net in planted for c in net]
            )
            print(f"| {n_lost} images | {seen} of {PLANTED_NIGHTS} nights | {100 * alone:.1f} % of cases |")
        print()


if __name__ == "__main__":
    main()
