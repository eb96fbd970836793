"""How training scales over processes: measured on one and two ranks, and a model beyond that.

Weak scaling: every rank has as many images of each step, so the ideal time of a step is the same on
any number of ranks, and the efficiency of N ranks is ``step(1) / step(N)``. Measured are, on one
thread a rank, a step of one process alone; of two processes that train apart at the same time,
which says what they cost each other on this machine; of two ranks that train together; exchanges of
many sizes between them; and how much of an exchange MPI does while a rank computes.

The model is that of messages: one takes ``alpha`` seconds and ``beta`` a byte. A step of N ranks is

    step(N) = compute + rest + 2 small(N) + allreduce(N)
    allreduce(N) = 2 (N - 1) alpha + 2 (N - 1) / N beta n + gamma n     n bytes of gradients
    small(N) = ceil(log2(N)) alpha + (N - 1) beta 64                    N numbers for everyone

where ``compute`` is the measured step of one rank, and ``gamma`` adds up. ``alpha`` and ``beta``
are fitted to the measured exchanges; for the two networks that are drawn beside they are assumed,
and named as such. ``rest`` is what the measured step of two ranks takes beyond that: copies, caches
that exchanges have emptied, and waiting for the slower one. The model has it grow no further, and
knows no file system, and no links that ranks of one node share.

    python benchmarks/scaling.py                                # lenet5 and resnet8, a minute
    python benchmarks/scaling.py resnet8 --batch 32 --out scaling.png
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from comparison.networks import NETWORKS

from fastconv import nn
from fastconv.cli.output import print_table
from fastconv.cli.parser import positive_int
from fastconv.nn.mpi import MPICommunicator, add_in_order
from fastconv.nn.ranks import Ranks

SIZES = (8, 512, 2048, 8192, 32768, 131072, 524288, 1048576)  # elements of float32
RANKS = [2**k for k in range(11)]
# Seconds a message, and bytes a second: what such networks are said to reach, not measured here.
ASSUMED = {
    "100 Gbit/s InfiniBand (assumed: 1.5 us, 12 GB/s)": (1.5e-6, 1 / 12e9),
    "10 Gbit/s Ethernet (assumed: 30 us, 1.1 GB/s)": (30e-6, 1 / 1.1e9),
}
NUMBERS = 64  # bytes that a rank tells in a small exchange


class Link(NamedTuple):
    """Seconds a message, seconds a byte of a message, and seconds a byte that is added up."""

    alpha: float
    beta: float
    gamma: float

    def allreduce(self, ranks: int, nbytes: float) -> float:
        """Seconds of an exchange of gradients."""
        if ranks == 1:
            return 0.0
        moved = 2 * (ranks - 1) / ranks * nbytes
        return 2 * (ranks - 1) * self.alpha + self.beta * moved + self.gamma * nbytes

    def small(self, ranks: int) -> float:
        """Seconds until all ranks have a few numbers of each."""
        return math.ceil(math.log2(ranks)) * self.alpha + (ranks - 1) * self.beta * NUMBERS

    def exchanges(self, ranks: int, nbytes: float) -> float:
        """Seconds of all exchanges of a step."""
        return 2 * self.small(ranks) + self.allreduce(ranks, nbytes)


def fitted(sizes: Sequence[int], seconds: Sequence[float], gamma: float) -> Link:
    """The link between two ranks whose exchanges of so many bytes took so long.

    Least squares of relative errors: a few microseconds count as much as some milliseconds.
    """
    n, t = np.array(sizes, float), np.array(seconds)
    rows = np.stack([np.full(len(n), 2.0), n], axis=1) / t[:, None]
    (alpha, beta), *_ = np.linalg.lstsq(rows, (t - gamma * n) / t, rcond=None)
    return Link(max(float(alpha), 0.0), max(float(beta), 0.0), gamma)


# What ranks do ----------------------------------------------------------------------------------


class Clock:
    """When steps end."""

    def __init__(self) -> None:
        self.ticks: list[float] = []

    def on_batch_end(self, state: Any) -> None:
        self.ticks.append(time.perf_counter())

    def median(self) -> float:
        """Seconds of a step, without those that compile and plan; 0 on ranks that have no clock."""
        if not self.ticks:
            return 0.0
        return float(np.median(np.diff(self.ticks)[len(self.ticks) // 4 :]))


def step_seconds(name: str, batch: int, steps: int, comm: Any) -> float:
    """Median of a step of `fit`, in which this rank has `batch` images."""
    network = NETWORKS[name]
    size = comm.size if comm else 1
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8 * batch * size, *network.image)).astype(np.float32)
    y = rng.integers(0, network.classes, len(x))
    model = network.model()
    clock = Clock()
    nn.fit(
        model, network.loss(), network.optimizer(model, 1e-6), x, y, epochs=-(-steps // 8),
        batch_size=batch * size, callbacks=[clock], comm=comm,
    )  # fmt: skip
    return clock.median()


def median(work: Callable[[], Any], repeats: int) -> float:
    """Median of the seconds of a call."""
    found = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        found.append(time.perf_counter() - begin)
    return float(np.median(found))


def exchange_seconds(comm: Any, repeats: int) -> dict[str, Any]:
    """Seconds of sums of many sizes, of a few numbers of each rank, and of adding up alone."""
    ranks = Ranks(MPICommunicator(comm))
    found = []
    for size in SIZES:
        buffer = np.zeros(size, np.float32)
        found.append(median(lambda buffer=buffer: ranks.sum(buffer), repeats))
    adding = [adding_seconds(count, repeats) for count in (2, 8)]
    small = median(lambda: ranks.gather([1.0, 2.0, 3.0, 4.0]), repeats)
    ranks.close()
    return {"seconds": found, "gammas": adding, "small": small}


def adding_seconds(ranks: int, repeats: int) -> float:
    """Seconds a byte of adding up a share of so many ranks: two are added in one pass."""
    rows = np.zeros((ranks, SIZES[-1] // ranks), np.float32)
    share = np.empty(rows.shape[1], np.float32)
    return median(lambda: add_in_order(rows, share), repeats) / rows.nbytes


def hidden_share(comm: Any, repeats: int) -> float:
    """Which part of an exchange is over sooner where it is begun before an equally long work."""
    send = np.zeros((comm.size, SIZES[-2] // comm.size), np.float32)
    receive = np.empty_like(send)
    alone = median(lambda: comm.Alltoall(send, receive), repeats)

    def work() -> None:
        until = time.perf_counter() + alone
        while time.perf_counter() < until:
            pass

    def both() -> None:
        request = comm.Ialltoall(send, receive)
        work()
        request.Wait()

    return max(0.0, 1 - (median(both, repeats) - median(work, repeats)) / alone)


def child(words: Sequence[str]) -> None:
    """What a rank measures; rank 0 prints it."""
    from mpi4py import MPI

    world, (kind, name, batch, steps) = MPI.COMM_WORLD, words
    if kind == "exchange":
        found: Any = exchange_seconds(world, int(steps))
        found["hidden"] = hidden_share(world, int(steps))
    else:
        world.Barrier()
        found = step_seconds(name, int(batch), int(steps), world if kind == "together" else None)
    if world.rank == 0:
        print(json.dumps(found))


def on_ranks(count: int, *words: Any) -> Any:
    """What rank 0 of so many, of one thread each, measures."""
    beside = shutil.which("mpiexec", path=str(Path(sys.executable).parent))
    command = [beside or "mpiexec", "-n", str(count), sys.executable, __file__, "--child"]
    done = subprocess.run(
        [*command, *map(str, words)], env={**os.environ, "FASTCONV_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


# What is made of it -----------------------------------------------------------------------------


class Study(NamedTuple):
    """A network's figures: seconds of a step, and bytes of its gradients."""

    name: str
    batch: int
    nbytes: int
    alone: float
    apart: float
    together: float

    def rest(self, link: Link) -> float:
        """Seconds that two ranks take beyond what `link` explains, which is theirs."""
        return max(0.0, self.together - self.alone - link.exchanges(2, self.nbytes))

    def efficiency(self, link: Link, ranks: int, rest: float) -> float:
        """What the model says of so many ranks on a link."""
        if ranks == 1:
            return 1.0
        return self.alone / (self.alone + rest + link.exchanges(ranks, self.nbytes))


def study(name: str, batch: int, steps: int) -> Study:
    """Measure a network."""
    nbytes = sum(p.grad.nbytes for p in NETWORKS[name].model().parameters())
    alone = on_ranks(1, "alone", name, batch, steps)
    apart = on_ranks(2, "alone", name, batch, steps)
    together = on_ranks(2, "together", name, batch, steps)
    return Study(name, batch, nbytes, alone, apart, together)


def report(studies: Sequence[Study], link: Link, found: dict[str, Any]) -> None:
    """Print what was measured, and what the model makes of it."""
    rows = [
        (
            s.name, str(s.batch), f"{s.nbytes / 1024:.0f}", *(
                f"{1e3 * t:.3f}" for t in (s.alone, s.apart, s.together)
            ),
            f"{s.alone / s.apart:.2f}", f"{s.alone / s.together:.2f}",
            f"{s.apart / s.together:.2f}",
        )
        for s in studies
    ]  # fmt: skip
    head = ["network", "images", "KiB", "1 alone ms", "2 apart ms", "2 together ms", "apart",
            "efficiency", "of apart"]  # fmt: skip
    print_table(head, rows)
    print()
    sizes = [4 * n for n in SIZES]
    pairs = zip(sizes, found["seconds"], strict=True)
    print_table(
        ["KiB", "allreduce us", "model us"],
        [
            (f"{n / 1024:.1f}", f"{1e6 * t:.1f}", f"{1e6 * link.allreduce(2, n):.1f}")
            for n, t in pairs
        ],
    )
    alpha, rate, adding = 1e6 * link.alpha, 1e-9 / link.beta, 1e-9 / link.gamma
    print(f"alpha {alpha:.1f} us, 1 / beta {rate:.2f} GB/s, 1 / gamma {adding:.2f} GB/s; "
          f"a small exchange {1e6 * found['small']:.1f} us")  # fmt: skip
    print(f"of an exchange of 2 MiB {found['hidden']:.0%} are done while a rank computes")
    print()
    links = {"these two ranks": link} | _assumed(link.gamma)
    rows = [
        (
            s.name, name.partition(" (")[0],
            *(f"{s.efficiency(other, n, s.rest(link)):.2f}" for n in RANKS),
        )
        for s in studies
        for name, other in links.items()
    ]  # fmt: skip
    print_table(["efficiency, modelled", "link", *map(str, RANKS)], rows, left=2)


def _assumed(gamma: float) -> dict[str, Link]:
    return {name: Link(*numbers, gamma) for name, numbers in ASSUMED.items()}


def draw(path: Path, studies: Sequence[Study], link: Link) -> None:
    """The efficiency over the ranks: measured points, and the model's lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4 * len(studies), 4.8), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(studies), sharey=True))
    links = {"the link of these two ranks, fitted": link} | _assumed(link.gamma)
    colours = ("#222222", "#1f5fa8", "#e07b00")
    for ax, s in zip(axes, studies, strict=True):
        for (name, other), colour in zip(links.items(), colours, strict=True):
            line = [s.efficiency(other, n, s.rest(link)) for n in RANKS]
            ax.plot(RANKS, line, color=colour, label=name)
        ax.plot([1, 2], [1, s.alone / s.together], "o", color=colours[0], label="measured")
        ax.plot([2], [s.alone / s.apart], "x", color=colours[0], label="two that train apart")
        ax.set_xscale("log", base=2)
        ax.set_xticks(RANKS, [str(n) for n in RANKS])
        ax.set_ylim(0, 1.1)
        ax.grid(alpha=0.3)
        ax.set_xlabel("ranks, of one thread each")
        ax.set_title(f"{s.name}: {s.batch} images a rank, {s.nbytes / 1024:.0f} KiB of gradients",
                     fontsize=10)  # fmt: skip
    axes[0].set_ylabel("weak-scaling efficiency: step(1) / step(N)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)
    figure.savefig(path, dpi=110)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["--child"]:
        child(words[1:])
        return 0
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", default=["lenet5", "resnet8"], metavar="NETWORK")
    parser.add_argument("--batch", type=positive_int, default=32, help="images a rank (32)")
    parser.add_argument("--steps", type=positive_int, default=80, help="that are timed (80)")
    parser.add_argument("--out", type=Path, metavar="FILE.png", help="draw the efficiency")
    args = parser.parse_args(words)
    for name in args.networks:
        if name not in NETWORKS:
            parser.error(f"{name}: not one of {', '.join(NETWORKS)}")
    found = on_ranks(2, "exchange", "-", 0, args.steps)
    of_two, gamma = found["gammas"]
    link = fitted([4 * n for n in SIZES], found["seconds"], of_two)._replace(gamma=gamma)
    studies = [study(name, args.batch, args.steps) for name in args.networks]
    report(studies, link, found)
    if args.out:
        draw(args.out, studies, link)
        print(f"\n{args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
