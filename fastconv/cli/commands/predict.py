"""``fastconv predict``: classes and probabilities of images by a trained model.

Printed, a line an image; or with ``--out`` kept in an array.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastconv.cli.output import CommandError, command_line, one_line
from fastconv.cli.parser import Parser, pathname, positive_int
from fastconv.cli.training.setup import Files

IMAGES = (".png", ".jpg", ".jpeg")
LINE_SECONDS = 30.0  # between two lines of progress where there is no terminal


def add(parser: Parser) -> None:
    """Add the command's options."""
    parser.description = (
        "Print the most probable classes of images, a line each. Images of another size than the "
        "model's are resized; bytes are scaled as those were that the model was trained on. With "
        "--out, keep the probabilities (of a model that makes images: its outputs) of an array's "
        "images in a zarr array. That takes bounded memory, and the same command goes on where it "
        "was stopped."
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
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--top", type=positive_int, default=3, metavar="N", help="classes a line (default 3)"
    )
    how.add_argument(
        "--out",
        type=pathname,
        metavar="RESULT.zarr",
        help="print nothing, and keep the results of one zarr array or .npy file here",
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
    if args.out is not None:
        _keep(args, model, about)
        return 0
    for path in args.images:
        try:
            for names, x, scale in _images(path, about):
                probabilities = _probabilities(model.predict(x, scale=scale))
                for name, row in zip(names, probabilities, strict=True):
                    print(f"{name}: {_found(row, about.class_names, args.top)}", flush=True)
        except (ImportError, OSError, ValueError, TypeError) as error:
            raise _command_error(error, path) from error
    return 0


def _command_error(error: Exception, path: Path) -> CommandError:
    text = one_line(error)
    if isinstance(error, ImportError):
        return CommandError(text, status=1)
    return CommandError(text if str(path) in text else f"{path}: {text}")


def _keep(args: argparse.Namespace, model: Any, about: Any) -> None:
    """Results of one array, in an array."""
    (path, *more) = args.images
    if more or not (_is_numpy(path) or _is_zarr(path)):
        got = " ".join(map(str, args.images))
        raise CommandError(f"--out: the results of one zarr array or .npy file, got {got}")
    progress = _Chunks(args.out)
    try:
        x = _array(path) if _is_numpy(path) else _zarr(path)
        _check_numbers(path, x)
        from fastconv.adapters import zarr

        zarr.predict(
            model,
            x,
            args.out,
            scale=_scale(path, x, about),
            head=_values,
            attributes={"class_names": list(about.class_names)},
            progress=progress,
        )
    except (ImportError, OSError, ValueError, TypeError) as error:
        raise _command_error(error, path) from error
    except KeyboardInterrupt:
        progress.close()
        print(f"\ninterrupted; go on with\n    {command_line(args.argv)}", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        progress.close()


class _Chunks:
    """Progress of a result on standard error: a bar on a terminal, else a line now and then."""

    def __init__(self, out: Path) -> None:
        from fastconv.nn.progress import new_bar

        self.out, self.bar, self.told = out, new_bar(), 0.0

    def __call__(self, now: Any) -> None:
        """Show how far the result is."""
        if not self.told:
            self.told = time.monotonic()
            if now.spoilt:
                self._line(f"{now.spoilt} chunks were not whole, and are computed again")
            if now.found:
                self._line(f"{now.found} of {now.of} chunks were there")
            if self.bar is not None:
                self.bar.start("chunk", now.of)
        if self.bar is not None:
            self.bar.move(now.chunks, "")
        if now.chunks == now.of:
            self.close()
            self._line(f"{now.of} of {now.of} chunks are there")
        elif self.bar is None and time.monotonic() - self.told > LINE_SECONDS:
            self.told = time.monotonic()
            self._line(f"{now.chunks} of {now.of} chunks")

    def _line(self, text: str) -> None:
        print(f"{self.out}: {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.close()


def _values(z: Any) -> Any:
    """What is kept of outputs: probabilities, or those of a model that makes images."""
    return _probabilities(z) if z.ndim == 2 else z


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
    if _is_numpy(path):
        yield _numbered(path, _array(path), about)
    elif _is_zarr(path):
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


def _is_numpy(path: Path) -> bool:
    return path.suffix.lower() == ".npy"


def _is_zarr(path: Path) -> bool:
    return path.joinpath(".zarray").exists() or path.joinpath("zarr.json").exists()


def _array(path: Path) -> Any:
    import numpy as np

    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OverflowError, SyntaxError) as error:
        raise ValueError(f"{path}: it is no whole .npy file ({error})") from error


def _zarr(path: Path) -> Any:
    from fastconv._extras import host

    return host("zarr", "zarr").open_array(str(path), mode="r")


def _numbered(path: Path, x: Any, about: Any) -> tuple[list[str], Any, float | None]:
    """Images of one array."""
    import numpy as np

    shape = about.image_shape
    _check_numbers(path, x)
    if x.ndim in (2, 3) and (x.ndim == 2 or x.shape == shape):
        x = np.asarray(x)[None]
    elif x.ndim not in (3, 4):
        raise ValueError(f"{path}: expected (H, W[, C]) or (m, H, W[, C]), got {x.shape}")
    if x.ndim == 3:
        x = np.asarray(x)[..., None]
    if shape is not None and tuple(x.shape[1:]) != tuple(shape):
        raise ValueError(f"{path}: the model takes images of {shape}, got {tuple(x.shape[1:])}")
    return [f"{path}[{i}]" for i in range(x.shape[0])], x, _scale(path, x, about)


def _check_numbers(path: Path, x: Any) -> None:
    if x.dtype.kind not in "biuf":
        raise TypeError(f"{path}: numbers (images) are needed, got {x.dtype}")


def _scale(path: Path, x: Any, about: Any) -> float:
    """What `predict` scales the images of an array by."""
    import numpy as np

    from fastconv.examples.pixels import pixel_scale

    if x.dtype.kind not in "iu":
        return 1.0
    if x.dtype == np.uint8:
        scale: float = about.scale
        return scale
    rows = max(1, 2**26 // max(1, x[:1].nbytes))  # so many images at a time
    parts = (np.asarray(x[i : i + rows]) for i in range(0, x.shape[0], rows))
    largest = max((pixel_scale(part, []) for part in parts), default=1.0)
    print(f"{path}: {x.dtype} divided by {largest:g}", file=sys.stderr)
    return 1 / largest
