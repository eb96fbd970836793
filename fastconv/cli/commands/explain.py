"""``fastconv explain``: follow images forward and backward through a small network."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fastconv.cli.output import INSTALL_EXAMPLES, CommandError, one_line, style
from fastconv.cli.parser import Parser, pathname, positive_int, seed
from fastconv.explain import Explanation, explain
from fastconv.explain.drawings import drawing, framed
from fastconv.explain.images import read_array, read_images

MODELS = ("binary_cnn", "two_conv", "two_conv_cnn")
# What the user calls the arguments of `fastconv.explain.explain`.
OPTIONS = {"x": "--image", "y": "--label", "w1": "--kernel"}


def add(parser: Parser) -> None:
    """Add the command's options."""
    parser.description = (
        "Take an image through a small network, forward and backward, and print every number with "
        "the equation that made it. binary_cnn (convolution, ReLU, max pool, dense, sigmoid) shows "
        "which cell of a pooling window gets the error; two_conv (two convolutions, two hidden "
        "layers) how the delta of the second convolution becomes that of the first."
    )
    parser.add_argument("--model", choices=MODELS, default="binary_cnn", help="default binary_cnn")
    parser.add_argument(
        "--pool", choices=("max", "mean"), default="max", help="the subsampling (default max)"
    )
    parser.add_argument(
        "--digit", type=int, choices=(0, 1), default=1, help="which digit (default 1)"
    )
    parser.add_argument(
        "--image",
        metavar="N|FILE",
        default="0",
        help="the N-th test image of that digit (default 0; without scikit-learn a built-in "
        "drawing), or a picture, an .npy or a .csv file: uint8 is divided by 255, other integers "
        "by the largest, floats are in 0 .. 1. binary_cnn takes 8x8, two_conv any size",
    )
    parser.add_argument(
        "--label",
        type=seed,
        nargs="+",
        metavar="N",
        help="of each image (default: the digit; of several images what the network says itself)",
    )
    parser.add_argument(
        "--kernel", metavar="FILE", help="w1, as an .npy or .csv file, (KH, KW) or (KH, KW, C, F)"
    )
    parser.add_argument("--filters", type=positive_int, metavar="N", help="of two_conv (default 2)")
    parser.add_argument(
        "--activation", choices=("sigmoid", "relu"), help="of two_conv (default sigmoid)"
    )
    parser.add_argument(
        "--seed",
        type=seed,
        default=2,
        metavar="N",
        help="of the model's parameters (default 2, with which the ReLU stops some errors)",
    )
    parser.add_argument(
        "--png", metavar="FILE", type=pathname, help="also draw the flow as a figure"
    )
    parser.add_argument(
        "--html",
        metavar="FILE",
        type=pathname,
        help="also write a page: point at a cell to follow it",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead")
    parser.add_argument(
        "--notebook",
        metavar="DIR",
        type=pathname,
        help="write the notebooks (both questions, im2col step by step, Fashion-MNIST) and end",
    )


def run(args: argparse.Namespace) -> int:
    """Explain, and return the exit status."""
    if args.notebook is not None:
        return _notebooks(args.notebook)
    write = _figure() if args.png else None
    found = _explanation(args)
    written = []
    if write is not None:
        try:
            write(found.plot(), args.png)
        except (OSError, ValueError) as error:  # ValueError: an ending matplotlib does not know
            raise CommandError(f"--png: {one_line(error)}") from error
        written.append(f"Figure written to {args.png}.")
    if args.html:
        _write_page(found, args.html)
        written.append(f"Page written to {args.html}.")
    if args.json:
        numbers = found.as_dict()
        print(json.dumps({"image": found.source, "seed": args.seed, **numbers}, indent=1))
        return 0
    print(found.text(style))
    for line in written:
        print(f"\n  {line}")
    return 0


def _explanation(args: argparse.Namespace) -> Explanation:
    x, source = _image(args)
    label = args.label if args.label is not None else [args.digit] if len(x) == 1 else None
    try:
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always", UserWarning)
            found = explain(
                x,
                None if label is None else np.array(label),
                model=args.model,
                pool=args.pool,
                w1=None if args.kernel is None else _read(read_array, "--kernel", args.kernel),
                filters=args.filters,
                activation=args.activation,
                seed=args.seed,
                source=source,
            )
    except (ValueError, TypeError) as error:
        name, colon, rest = one_line(error).partition(":")
        raise CommandError(f"{OPTIONS.get(name, f'--{name}')}{colon}{rest}") from error
    for note in notes:
        print(f"note: {note.message}", file=sys.stderr)
    return found


def _image(args: argparse.Namespace) -> tuple[np.ndarray, str]:
    """The images asked for, (m, H, W[, C]), and a description of them."""
    if not args.image.isdecimal():
        return _image_file(args.image)
    image, source = _digit(args.digit, int(args.image))
    return (image if args.model == "binary_cnn" else framed(image))[None], source


def _digit(digit: int, n: int) -> tuple[np.ndarray, str]:
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
    x = _read(read_images, "--image", name)
    return x[None] if x.ndim == 2 else x, f"read from {name}"


def _read(reader: Callable[[str], np.ndarray], option: str, name: str) -> np.ndarray:
    try:
        return reader(name)
    except ImportError as error:
        raise CommandError(f"{option}: {one_line(error)}", status=1) from error
    except (OSError, ValueError) as error:
        raise CommandError(f"{option}: {one_line(error)}") from error


def _figure() -> Callable[[Any, Path], None]:
    """The function that writes a figure, or an error before anything is printed."""
    try:
        from fastconv.explain.figure import write
    except ImportError as error:
        raise CommandError(
            f"--png draws with matplotlib, which is missing; run: {INSTALL_EXAMPLES}", status=1
        ) from error
    return write


def _write_page(found: Explanation, path: Path) -> None:
    from fastconv.nn.files import replacing

    head = f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{found.model}</title>\n'
    try:
        with replacing(path) as file:
            file.write(f"{head}<body>{found.html()}</body></html>\n".encode())
    except (OSError, ValueError) as error:
        raise CommandError(f"--html: {one_line(error)}") from error


def _notebooks(folder: Path) -> int:
    from fastconv.explain.notebooks import write_notebooks

    try:
        paths = write_notebooks(folder)
    except OSError as error:
        raise CommandError(f"--notebook: {one_line(error)}") from error
    for path in paths:
        print(path)
    return 0
