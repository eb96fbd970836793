"""``fastconv export``: write a trained network as an ONNX file."""

from __future__ import annotations

import argparse

from fastconv.cli.output import CommandError, one_line
from fastconv.cli.parser import Parser, pathname
from fastconv.cli.training.setup import DEFAULT_OUT, Files

OUTPUTS = ("logits", "softmax", "sigmoid")


def add(parser: Parser) -> None:
    """Add the command's options."""
    parser.description = (
        "Write a trained network as an ONNX file, for ONNX Runtime and others. Its input x is "
        "(m, H, W, C) for any m. Needs onnx: python -m pip install 'fastconv[onnx]'."
    )
    parser.add_argument(
        "model",
        nargs="?",
        type=pathname,
        default=DEFAULT_OUT,
        metavar="MODEL",
        help=f"what train wrote: its folder, or a file NAME.npz (default {DEFAULT_OUT})",
    )
    parser.add_argument(
        "onnx",
        nargs="?",
        type=pathname,
        metavar="FILE.onnx",
        help="default: beside the model, with its name",
    )
    parser.add_argument(
        "--output",
        choices=OUTPUTS,
        default="logits",
        help="what y is: the last layer's output as it is (logits, the default), or the "
        "probabilities that softmax or sigmoid make of it",
    )
    parser.add_argument(
        "--input-shape",
        type=image_shape,
        metavar="HxWxC",
        help="fix the image's shape, such as 8x8x1 (default: free, where the network allows it)",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        help="default: the network's; ONNX Runtime has no float64 convolution",
    )


def image_shape(text: str) -> tuple[int, ...]:
    """Argument type: the shape of one image.

    >>> image_shape("8x8x1")
    (8, 8, 1)
    """
    words = text.split("x")
    if not all(word.isdecimal() and int(word) for word in words):
        raise argparse.ArgumentTypeError(f"'{text}' is not a shape such as 8x8x1")
    return tuple(int(word) for word in words)


def run(args: argparse.Namespace) -> int:
    """Write the file, and return the exit status."""
    from fastconv import nn

    if args.model.is_file() and args.model.suffix != ".npz":
        raise CommandError(
            f"{args.model}: expected the folder that train wrote, or a file NAME.npz"
        )
    source = Files.under(args.model).model
    target = args.onnx or source.with_suffix(".onnx")
    if target.suffix != ".onnx":
        raise CommandError(f"{target} must be a file name that ends in .onnx")
    try:
        model = nn.Sequential.load(source)
        model.to_onnx(target, input_shape=args.input_shape, output=args.output, dtype=args.dtype)
    except ImportError as error:
        raise CommandError(one_line(error), status=1) from error
    except (OSError, ValueError, TypeError) as error:
        raise CommandError(one_line(error)) from error
    print(f"{target}: input x (m, ..., C), output y: {args.output}")
    return 0
