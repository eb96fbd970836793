"""Images for ``explain`` out of a file: .png and other pictures, .npy, .csv."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from fastconv.nn.files import file_path
from fastconv.nn.npz import HEADER_DAMAGE

__all__ = ["read_array", "read_images"]

# More pixels than anyone reads; a larger file is refused before it is read.
MOST_PIXELS = 100_000
MOST_BYTES = 4_000_000  # of a .csv file, as text


def read_images(path: str | os.PathLike[str]) -> np.ndarray:
    """Pixels as they are in the file: (H, W), (m, H, W) or (m, H, W, C).

    A coloured picture becomes one of brightness, by the weights of ITU-R 601.

    Raises
    ------
    OSError
        If there is no such file, or it cannot be read.
    ValueError
        If it holds no numbers, or too many.
    ImportError
        For a picture, if Pillow is not installed.
    """
    path = file_path("path", path)
    if path.suffix.lower() in (".npy", ".npz", ".csv"):
        return read_array(path)
    path.open("rb").close()  # a missing file is one, with or without Pillow
    return _picture(path)


def read_array(path: str | os.PathLike[str]) -> np.ndarray:
    r"""Numbers of an .npy or a .csv file; nothing is unpickled.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "x.csv").write_text("0,17\n255,3\n")
    ...     read_array(f"{folder}/x.csv").dtype.kind
    'i'
    """
    path = file_path("path", path)
    array = _csv(path) if path.suffix.lower() == ".csv" else _npy(path)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{path}: expected numbers, found {array.shape} of {array.dtype}")
    return array


def _npy(path: Path) -> np.ndarray:
    try:
        # mapped: nothing is read, or allocated, before the header is known to be small
        array = np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except HEADER_DAMAGE as error:
        raise ValueError(f"{path}: not an .npy file") from error
    _check_size(path, array.shape)
    return np.array(array)


def _csv(path: Path) -> np.ndarray:
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{path}: {size} bytes are too many to read, at most {MOST_BYTES}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text of numbers") from error
    rows = [line.split(",") for line in text.splitlines() if line.strip()]
    if not rows or len({len(row) for row in rows}) != 1:
        raise ValueError(f"{path}: expected rows of equally many numbers, separated by commas")
    kinds: tuple[Any, Any] = (np.int64, np.float64)
    for kind in kinds:
        try:
            return np.array([[kind(cell) for cell in row] for row in rows])
        except (ValueError, OverflowError):
            continue
    raise ValueError(f"{path}: expected rows of equally many numbers, separated by commas")


def _picture(path: Path) -> np.ndarray:
    try:
        from PIL import Image
    except ImportError as error:
        command = 'python -m pip install "fastconv[examples]"'
        raise ImportError(f"{path}: pictures are read by Pillow; run: {command}") from error
    broken = (SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
    try:
        with warnings.catch_warnings():
            # a huge one is refused below, by its header, which is all that is read here
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
    except broken as error:
        raise ValueError(f"{path}: {error}") from error
    with image:
        _check_size(path, (image.height, image.width))
        deep = image.mode.startswith(("I", "F"))  # 16 and 32 bits a pixel
        try:
            return np.array(image if deep else image.convert("L"))
        except broken as error:
            raise ValueError(f"{path}: {error}") from error


def _check_size(path: Path, shape: tuple[int, ...]) -> None:
    cells = int(np.prod(shape, dtype=object))
    if cells > MOST_PIXELS:
        size = "x".join(map(str, shape))
        raise ValueError(f"{path}: {size} pixels are too many to read, at most {MOST_PIXELS}")
