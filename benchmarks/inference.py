"""Compare predictions of small networks, in evaluation mode.

Every library has the same network with the same weights; outputs are compared before anything is
timed. Then the libraries take turns; medians are compared. Libraries that are not installed are
left out: ``python -m pip install onnx onnxruntime torch jax``. Ratios refer to ONNX Runtime, which
reads the file that ``Sequential.to_onnx`` writes.

    python benchmarks/inference.py                      # all networks; it takes long
    python benchmarks/inference.py lenet5 resnet8 --batches 1 16 64 --peers onnxruntime
    python benchmarks/inference.py digits_cnn --batches 1 --threads 1
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "16")  # compare.py says why

from comparison.options import Makers, build_parser, makers
from comparison.run import compare_networks

PEERS = makers("onnxruntime", "pytorch", "jax")
LEGEND = """\
images/s: of fastconv; a thread: the same over the number of threads.
ONNX RT: the file that to_onnx writes. PyTorch: eager, inference mode, the faster memory format.
JAX: one jitted function.
MiB: weights, one batch and all that a prediction allocates, in a process of its own."""


def main(argv: Sequence[str] | None = None, peers: Makers | None = None) -> int:
    """Run the program and return its exit status: 1 if an answer was wrong."""
    parser = build_parser("inference.py", __doc__)
    known = PEERS if peers is None else peers
    return compare_networks(
        parser,
        argv,
        known,
        "predict",
        legend=LEGEND,
        batches=(1, 16, 64),
        baseline="onnxruntime",
    )


if __name__ == "__main__":
    sys.exit(main())
