"""Compare an epoch of Fashion-MNIST, end to end: shuffling, batches, steps, loss and accuracy.

fastconv trains ``digits_cnn`` with ``nn.fit``, PyTorch the same network with a loop of its own over
tensors, without a DataLoader. The losses of ten steps on these images are compared first. Then
the libraries take turns, an epoch each. On Debian ``apt-get install dataset-fashion-mnist`` brings
the images; any folder of such IDX files will do.

    python benchmarks/epoch.py
    python benchmarks/epoch.py --images 6000 --threads 2
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "16")  # compare.py says why

from comparison.networks import Network, NetworkCase
from comparison.options import Makers, add_options, build_parser, check_options, installed, makers
from comparison.peers.fastconv import Fastconv
from comparison.rows import OURS, Library
from comparison.run import measure_tables, report

from fastconv.cli.output import one_line
from fastconv.cli.parser import positive_int
from fastconv.examples import digits_cnn
from fastconv.examples.data import load_idx

PEERS = makers("pytorch", pytorch={"gradients": True})
FOLDER = Path("/usr/share/datasets/fashion-mnist")
LEGEND = """\
images/s: of fastconv; a thread: the same over the number of threads.
PyTorch: eager, the faster memory format, fused optimizer, no DataLoader."""


def main(argv: Sequence[str] | None = None, peers: Makers | None = None) -> int:
    """Run the program and return its exit status: 1 if an answer was wrong."""
    known = PEERS if peers is None else peers
    parser = build_parser("epoch.py", __doc__)
    parser.add_argument(
        "--data", type=Path, default=FOLDER, metavar="FOLDER", help=f"IDX files (default {FOLDER})"
    )
    parser.add_argument("--batch", type=positive_int, default=32, metavar="M", help="default 32")
    parser.add_argument(
        "--images", type=positive_int, metavar="N", help="the first N training images (default all)"
    )
    add_options(parser, list(known), repeat=3)
    args = parser.parse_args(argv)
    check_options(parser, args)
    try:
        data = load_idx(args.data)
    except (OSError, ValueError) as error:
        parser.error(f"--data: {one_line(error)}")
    images = (data.x_train[: args.images], data.y_train[: args.images])
    shape = images[0].shape[1:]
    network = Network("digits_cnn", lambda rng: digits_cnn(shape, data.classes), shape, adam=True)
    libraries: dict[str, Library] = {OURS: Fastconv()}
    libraries |= installed({name: known[name] for name in args.peers})
    case = NetworkCase(network, args.batch, "epoch", images)
    rows = measure_tables([(args.data.name, lambda: [case])], libraries, args)
    return report(parser, args, rows, list(libraries), LEGEND)


if __name__ == "__main__":
    sys.exit(main())
