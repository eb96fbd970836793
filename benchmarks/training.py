"""Compare whole training steps of small networks: forward, loss, backward, update.

Every library trains the same network from the same weights; the losses of its first ten steps are
compared before anything is timed. Then the libraries take turns; medians are compared. Libraries
that are not installed are left out: ``python -m pip install torch jax``.

    python benchmarks/training.py                       # all networks; it takes long
    python benchmarks/training.py lenet5 resnet8 --batches 1 32 --peers pytorch
    python benchmarks/training.py lenet5_simplechains --batches 128 --memory
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "16")  # compare.py says why

from comparison.options import Makers, build_parser, makers
from comparison.run import compare_networks

PEERS = makers("pytorch", "jax", pytorch={"gradients": True})
LEGEND = """\
images/s: of fastconv; a thread: the same over the number of threads.
PyTorch: eager, the faster memory format, fused optimizer. JAX: one jitted step, donated buffers.
MiB: weights, one batch and all that a step allocates, in a process of its own."""


def main(argv: Sequence[str] | None = None, peers: Makers | None = None) -> int:
    """Run the program and return its exit status: 1 if an answer was wrong."""
    parser = build_parser("training.py", __doc__)
    known = PEERS if peers is None else peers
    return compare_networks(parser, argv, known, "step", legend=LEGEND, batches=(1, 8, 32, 128))


if __name__ == "__main__":
    sys.exit(main())
