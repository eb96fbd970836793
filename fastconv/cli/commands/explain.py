"""``fastconv explain``: follow one image forward and backward through `binary_cnn`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fastconv.cli.output import INSTALL_EXAMPLES, CommandError, one_line, style
from fastconv.cli.parser import Parser, seed
from fastconv.examples.pixels import OTHER_SCALE, pixel_scale
from fastconv.explain.drawings import drawing
from fastconv.explain.flow import Flow, follow
from fastconv.explain.text import explanation


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
    flow = follow(x, args.digit, args.seed)
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
        from fastconv.explain.figure import draw
    except ImportError as error:
        raise CommandError(
            f"--png draws with matplotlib, which is missing; run: {INSTALL_EXAMPLES}", status=1
        ) from error
    return draw
