"""``fastconv explain``: follow one image forward and backward through `binary_cnn`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fastconv.cli.explain_flow import Flow, Parameters, trace
from fastconv.cli.explain_text import explanation
from fastconv.cli.output import INSTALL_EXAMPLES, CommandError, one_line, style
from fastconv.cli.parser import Parser, seed
from fastconv.examples.pixels import OTHER_SCALE, pixel_scale

# Drawn for this program, 0 to 16 as in scikit-learn's digits: used where that is not installed.
DRAWINGS = {
    0: """
        0  0  3 12 13  4  0  0
        0  1 13 10  9 14  1  0
        0  6 12  0  0 11  7  0
        0  8  9  0  0  8  9  0
        0  8  8  0  0  8  9  0
        0  6 11  0  0 10  8  0
        0  1 14  8  8 14  2  0
        0  0  4 13 12  4  0  0
    """,
    1: """
        0  0  0  2 13  6  0  0
        0  0  2 13 16  6  0  0
        0  3 13 12 16  4  0  0
        0  4  5  4 16  4  0  0
        0  0  0  4 16  4  0  0
        0  0  0  5 16  3  0  0
        0  0  0  7 16  5  0  0
        0  0  0  3 13  6  0  0
    """,
}


def add(parser: Parser) -> None:
    """Add the command's options."""
    parser.description = (
        "Take one image through binary_cnn (convolution, ReLU, max pool, dense, sigmoid), forward "
        "and backward, and print every number with the equation that made it. The images are "
        "those of 0 and 1 among scikit-learn's digits; without scikit-learn, a built-in drawing."
    )
    parser.add_argument(
        "--digit", type=int, choices=(0, 1), default=1, help="which digit (default 1)"
    )
    parser.add_argument(
        "--image",
        metavar="N|FILE",
        default="0",
        help="the N-th test image of that digit (default 0), or an .npy file of shape (8, 8): "
        "uint8 is divided by 255, other integers by the largest, floats are in 0 .. 1",
    )
    parser.add_argument(
        "--seed",
        type=seed,
        default=2,
        metavar="N",
        help="of the model's parameters (default 2, with which the ReLU stops some errors)",
    )
    parser.add_argument("--png", metavar="FILE", type=Path, help="also draw the flow as a figure")
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead")


def run(args: argparse.Namespace) -> int:
    """Explain, and return the exit status."""
    draw = _figure() if args.png else None
    x, source = _image(args.digit, args.image)
    flow = explain(x, args.digit, args.seed)
    if draw:
        try:
            draw(flow, source, args.png)
        except (OSError, ValueError) as error:  # ValueError: an ending matplotlib does not know
            raise CommandError(f"--png: {one_line(error)}") from error
    if args.json:
        print(json.dumps({"image": source, "seed": args.seed, **flow.as_dict()}, indent=1))
    else:
        print(explanation(flow, source, style))
        if draw:
            print(f"\n  Figure written to {args.png}.")
    return 0


def explain(x: np.ndarray, y: int, seed: int) -> Flow:
    """Trace the image `x` (8, 8) with label `y` through a new `binary_cnn` of that seed."""
    import fastconv
    from fastconv.examples import binary_cnn

    w1, b1, w3, b3 = (p.value for p in binary_cnn(seed=seed, dtype=np.float64).parameters())
    parameters = Parameters(w1[:, :, 0, 0], float(b1[0]), w3[:, 0], float(b3[0]))
    return trace(np.asarray(x, np.float64), y, parameters, fastconv)


def drawing(digit: int) -> np.ndarray:
    """The built-in image of a digit, float64 (8, 8) in [0, 1].

    Examples
    --------
    >>> drawing(0).shape
    (8, 8)
    """
    return np.array(DRAWINGS[digit].split(), np.float64).reshape(8, 8) / 16


def _image(digit: int, choice: str) -> tuple[np.ndarray, str]:
    """The image asked for and a description of it."""
    if not choice.isdecimal():
        return _image_file(choice)
    n = int(choice)
    try:
        import sklearn.datasets  # noqa: F401
    except ImportError:
        if n:
            raise CommandError(
                f"--image {n}: only image 0 is built in; the others come with scikit-learn; run: "
                f"{INSTALL_EXAMPLES}",
                status=1,
            ) from None
        return drawing(digit), f"the built-in drawing of a {digit}"
    from fastconv.examples import data

    digits = data.load_digits()
    images = digits.x_test[digits.y_test == digit]
    if n >= len(images):
        raise CommandError(
            f"--image {n}: there are {len(images)} test images of the digit {digit}; expected "
            f"0 to {len(images) - 1}"
        )
    return images[n, :, :, 0].astype(np.float64), f"test image {n} of the digit {digit}"


def _image_file(name: str) -> tuple[np.ndarray, str]:
    from fastconv.nn.npz import HEADER_DAMAGE

    try:
        # mapped: nothing is read, or allocated, before the header has the right shape
        x = np.lib.format.open_memmap(name, mode="r")
    except OSError as error:
        raise CommandError(f"--image: {one_line(error)}") from error
    except HEADER_DAMAGE as error:
        raise CommandError(f"--image {name}: not an .npy file of shape (8, 8)") from error
    if x.shape != (8, 8) or x.dtype.kind not in "biuf":
        found = f"{x.shape} of {x.dtype}"
        raise CommandError(f"--image {name}: expected numbers of shape (8, 8), found {found}")
    if not np.isfinite(x).all():
        raise CommandError(f"--image {name}: expected finite numbers")
    scale = pixel_scale(x, [x])
    largest = float(np.abs(np.array(x, np.float64)).max()) / scale
    if largest > OTHER_SCALE:
        print(
            f"note: {name} holds floats up to {largest:g}, taken as they are: in 0 .. 1 the "
            "sigmoid does not saturate",
            file=sys.stderr,
        )
    return np.array(x, np.float64) / scale, f"read from {name}"


def _figure() -> Callable[[Flow, str, Path], None]:
    """The function that draws, or an error before anything is printed."""
    try:
        from fastconv.cli.explain_figure import draw
    except ImportError as error:
        raise CommandError(
            f"--png draws with matplotlib, which is missing; run: {INSTALL_EXAMPLES}", status=1
        ) from error
    return draw
