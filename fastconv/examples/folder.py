"""A folder of class folders of PNG and JPEG files: ``photos/cat/1.png``, ``photos/dog/7.jpg``.

Pillow reads them. A file's size is looked at before its pixels are: nothing is unpacked that does
not fit.
"""

from __future__ import annotations

import copy
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastconv._extras import host
from fastconv.examples.names import sorted_names
from fastconv.nn.checks import Array, positive_int
from fastconv.nn.files import file_path

SUFFIXES = {".png", ".jpg", ".jpeg"}
FORMATS = ("PNG", "JPEG")
GREY, COLOUR = {"1", "L", "LA"}, {"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
TRAIN, TESTS = "train", ("test", "val", "valid", "validation")
# Deflate shrinks to a thousandth at most; below so many pixels any file is read.
BOMB_PIXELS, BOMB_RATIO = 2**24, 1200
# What Pillow raises for damaged files, besides OSError.
DAMAGE = (SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError,
          AttributeError, AssertionError, struct.error, zlib.error, Warning)  # fmt: skip


def is_folder_of_images(folder: Path) -> bool:
    """Whether a folder holds folders with PNG or JPEG files, at once or one level deeper."""
    inner = [path for path in _folders(folder) if path.name.lower() in (TRAIN, *TESTS)]
    places = [folder, *inner]
    return any(next(_images(kind), None) for place in places for kind in _folders(place))


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and p.name[0] not in "._")


def _images(folder: Path) -> Any:
    return (p for p in sorted(folder.iterdir()) if p.suffix.lower() in SUFFIXES and p.is_file())


class ImageFiles:
    """Images of PNG and JPEG files, read as they are needed.

    `fastconv.nn.fit`, `evaluate` and `predict` take it with ``scale=1/255``.

    Parameters
    ----------
    paths : sequence of path
    size : (H, W), optional
        What every image is resized to. Without it all must be of one size.

    Attributes
    ----------
    shape : tuple of int
        (m, H, W, C): C is 1 if all are grey, else 3; transparency is left out.
    dtype : numpy.dtype
        uint8.

    Raises
    ------
    ImportError
        Without Pillow; the message says which command installs it.
    ValueError
        Naming a file that is no image, is damaged, or has another size.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (5, 4), (255, 0, 0)).save(f"{folder}/red.png")
    ...     images = ImageFiles([f"{folder}/red.png"])
    ...     images.shape, images[0][0, 0].tolist()
    ((1, 4, 5, 3), [255, 0, 0])
    """

    def __init__(self, paths: Sequence[Any], size: tuple[int, int] | None = None) -> None:
        self.paths = [file_path("paths", path) for path in paths]
        self.size = None if size is None else _checked_size(size)
        grey, shape = True, self.size
        for path in self.paths:
            found, is_grey = self._header(path)
            grey = grey and is_grey
            if shape is None:
                shape = found
            elif self.size is None and found != shape:
                raise ValueError(
                    f"{path}: expected {shape[0]}x{shape[1]} pixels (H x W), as "
                    f"{self.paths[0].name} has, found {found[0]}x{found[1]}: size=(H, W) resizes"
                )
        H, W = shape or (0, 0)
        self.mode = "L" if grey else "RGB"
        self.shape: tuple[int, ...] = (len(self.paths), H, W, 1 if grey else 3)
        self.dtype = np.dtype(np.uint8)

    @property
    def _pillow(self) -> Any:
        return host("PIL.Image", "examples")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int | slice | Array) -> Array:
        """Images by number, slice, or an array of numbers."""
        chosen = np.arange(len(self))[index]
        if np.ndim(chosen) == 0:
            return self._read(self.paths[int(chosen)])
        images: Array = np.empty((len(chosen), *self.shape[1:]), np.uint8)
        for image, number in zip(images, chosen, strict=True):
            image[...] = self._read(self.paths[int(number)])
        return images

    def part(self, chosen: Array) -> ImageFiles:
        """Some of the images, by number."""
        some = copy.copy(self)
        some.paths = [self.paths[int(i)] for i in chosen]
        some.shape = (len(some.paths), *self.shape[1:])
        return some

    def of_channels(self, channels: int) -> ImageFiles:
        """The same images in grey (1) or in colour (3).

        Raises
        ------
        ValueError
            If `channels` is another number.
        """
        if channels not in (1, 3):
            raise ValueError(f"channels: files have 1 or 3, not {channels}")
        some = copy.copy(self)
        some.mode = "L" if channels == 1 else "RGB"
        some.shape = (*self.shape[:3], channels)
        return some

    def _open(self, path: Path, read: Any) -> Any:
        try:
            with self._pillow.open(path, formats=FORMATS) as image:
                return read(image)
        except (*DAMAGE, OSError, self._pillow.DecompressionBombError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # no such file, or not to be read
            text = str(error) or type(error).__name__
            raise ValueError(f"{path}: expected a whole PNG or JPEG file, but {text}") from error

    def _header(self, path: Path) -> tuple[tuple[int, int], bool]:
        """(H, W), and whether the image is grey; its pixels are not read."""
        (W, H), mode = self._open(path, lambda image: (image.size, image.mode))
        held = path.stat().st_size
        limit = max(BOMB_PIXELS, BOMB_RATIO * held)
        if limit < H * W:
            raise ValueError(
                f"{path}: {H}x{W} pixels in {held} bytes: a file that is nearly empty, or made to "
                "do harm"
            )
        if mode not in GREY | COLOUR:
            raise ValueError(f"{path}: expected 8 bits a channel, found Pillow's mode {mode!r}")
        return (H, W), mode in GREY

    def _read(self, path: Path) -> Array:
        def pixels(image: Any) -> Array:
            H, W, C = self.shape[1:]
            if self.size is None and image.size != (W, H):
                raise ValueError(f"it is {image.size[1]}x{image.size[0]} now, it was {H}x{W}")
            found = image.convert(self.mode)
            if image.size != (W, H):
                found = found.resize((W, H), self._pillow.Resampling.BILINEAR)
            return np.asarray(found, np.uint8).reshape(H, W, C)

        found: Array = self._open(path, pixels)
        return found


def _checked_size(size: Any) -> tuple[int, int]:
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise ValueError(f"size: a pair (H, W) is needed, got {size!r}")
    return positive_int("size", size[0]), positive_int("size", size[1])


def find_images(folder: Path) -> tuple[list[tuple[list[Path], Array]], tuple[str, ...]]:
    """Files and labels of the training and, where there is a folder for it, of the test.

    Parameters
    ----------
    folder : Path
        With a folder for each class, or with ``train`` and ``test`` (or ``val``) around those.

    Returns
    -------
    parts : list of (list of Path, ndarray (m,) of int64)
    names : tuple of str
        Of the classes, which are those of the folders.

    Raises
    ------
    ValueError, FileNotFoundError
        Naming the folder, and saying what was expected.
    """
    inner = {path.name.lower(): path for path in _folders(folder)}
    places = [folder]
    if TRAIN in inner:
        places = [inner[TRAIN], *[inner[name] for name in TESTS if name in inner][:1]]
    found = [[(kind.name, list(_images(kind))) for kind in _folders(place)] for place in places]
    names = sorted_names(name for part in found for name, paths in part if paths)
    if not names or not any(paths for _, paths in found[0]):
        raise FileNotFoundError(
            f"{places[0]}: expected a folder of PNG or JPEG files for each class"
        )
    parts = []
    for part in found:
        kinds = sorted((names.index(name), paths) for name, paths in part if paths)
        pairs = [(path, number) for number, paths in kinds for path in paths]
        parts.append(([path for path, _ in pairs], np.array([n for _, n in pairs], np.int64)))
    return parts, tuple(names)
