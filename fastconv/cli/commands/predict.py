"""``fastconv predict``: classes and probabilities of images by a trained model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastconv.cli.output import CommandError, one_line
from fastconv.cli.parser import Parser, pathname, positive_int
from fastconv.cli.training.setup import Files

IMAGES = (".png", ".jpg", ".jpeg")


def add(parser: Parser) -> None:
    """Add the command's options."""
    parser.description = (
        "Print the most probable classes of images, a line each. Images of another size than the "
        "model's are resized; bytes are scaled as those were that the model was trained on."
    )
    parser.add_argument(
        "model",
        type=pathname,
        metavar="MODEL",
        help="what train wrote: its folder, or a file NAME.npz",
    )
    parser.add_argument(
        "images",
        nargs="+",
        type=pathname,
        metavar="IMAGES",
        help="PNG or JPEG files, folders of them, .npy files (H,W[,C]) or (m,H,W[,C]), zarr arrays",
    )
    parser.add_argument(
        "--top", type=positive_int, default=3, metavar="N", help="classes a line (default 3)"
    )


def run(args: argparse.Namespace) -> int:
    """Print the lines, and return the exit status."""
    from fastconv import nn
    from fastconv.nn.storage import read_about

    if args.model.is_file() and args.model.suffix != ".npz":
        raise CommandError(
            f"{args.model}: expected the folder that train wrote, or a file NAME.npz"
        )
    source = Files.under(args.model).model
    try:
        model, about = nn.Sequential.load(source), read_about(source)
    except (OSError, ValueError) as error:
        raise CommandError(one_line(error)) from error
    for path in args.images:
        try:
            for names, x, scale in _images(path, about):
                probabilities = _probabilities(model.predict(x, scale=scale))
                for name, row in zip(names, probabilities, strict=True):
                    print(f"{name}: {_found(row, about.class_names, args.top)}", flush=True)
        except ImportError as error:
            raise CommandError(one_line(error), status=1) from error
        except (OSError, ValueError, TypeError) as error:
            text = one_line(error)
            text = text if str(path) in text else f"{path}: {text}"
            raise CommandError(text) from error
    return 0


def _probabilities(z: Any) -> Any:
    """(m, classes) of the network's outputs; one output is the probability of class 1."""
    import numpy as np

    from fastconv import nn

    if z.ndim != 2:
        raise ValueError(f"the model has outputs {z.shape[1:]}; it tells no classes apart")
    if z.shape[1] > 1:
        return nn.SoftmaxCrossEntropy().predict(z)
    p = nn.sigmoid(z)
    return np.concatenate([1 - p, p], axis=1)


def _found(row: Any, class_names: tuple[str, ...], top: int) -> str:
    order = (-row).argsort(kind="stable")[:top]
    named = [class_names[i] if i < len(class_names) else str(i) for i in order]
    return ", ".join(f"{name} {row[i]:.4f}" for name, i in zip(named, order, strict=True))


def _images(path: Path, about: Any) -> Iterator[tuple[list[str], Any, float | None]]:
    """Names, images and what `predict` scales them by, of one of the command's words."""
    if path.suffix.lower() == ".npy":
        yield _numbered(path, _array(path), about)
    elif path.is_dir() and ((path / ".zarray").exists() or (path / "zarr.json").exists()):
        yield _numbered(path, _zarr(path), about)
    elif path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGES and p.is_file())
        if not found:
            raise ValueError(f"{path}: there is no PNG or JPEG file in it")
        yield _files(found, about)
    elif not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    else:
        yield _files([path], about)


def _files(paths: list[Path], about: Any) -> tuple[list[str], Any, float | None]:
    from fastconv.examples.folder import ImageFiles

    size = None if about.image_shape is None else about.image_shape[:2]
    images = ImageFiles(paths, size)
    if about.image_shape is not None:
        images = images.of_channels(about.image_shape[2])
    return [str(path) for path in paths], images, about.scale


def _array(path: Path) -> Any:
    import numpy as np

    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OverflowError, SyntaxError) as error:
        raise ValueError(f"{path}: it is no whole .npy file ({error})") from error


def _zarr(path: Path) -> Any:
    from fastconv._extras import host

    return host("zarr", "examples").open_array(str(path), mode="r")


def _numbered(path: Path, x: Any, about: Any) -> tuple[list[str], Any, float | None]:
    """Images of one array."""
    import numpy as np

    shape = about.image_shape
    if x.dtype.kind not in "biuf":
        raise TypeError(f"{path}: numbers (images) are needed, got {x.dtype}")
    if x.ndim in (2, 3) and (x.ndim == 2 or x.shape == shape):
        x = np.asarray(x)[None]
    elif x.ndim not in (3, 4):
        raise ValueError(f"{path}: expected (H, W[, C]) or (m, H, W[, C]), got {x.shape}")
    if x.ndim == 3:
        x = np.asarray(x)[..., None]
    if shape is not None and tuple(x.shape[1:]) != tuple(shape):
        raise ValueError(f"{path}: the model takes images of {shape}, got {tuple(x.shape[1:])}")
    scale: float | None = about.scale if x.dtype.kind in "iu" else 1.0
    if x.dtype.kind in "iu" and x.dtype != np.uint8:
        from fastconv.examples.pixels import pixel_scale

        x = np.asarray(x)
        scale = 1 / pixel_scale(x, [x])
        print(f"{path}: {x.dtype} divided by {1 / scale:g}", file=sys.stderr)
    return [f"{path}[{i}]" for i in range(x.shape[0])], x, scale
