"""Pixels of any dtype as float32 images in one scale."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fastconv.nn.checks import Array

# A largest pixel above this, where other images stay within 0 .. 1, is another scale: 0 .. 16 and
# 0 .. 255 are, and standardised images, which reach 3 or 4, are not.
OTHER_SCALE = 10.0


def as_images(arrays: Mapping[str, Array], where: str) -> list[Array]:
    """Images (m, H, W) or (m, H, W, C) as float32 (m, H, W, C), each array by its own dtype.

    uint8 is divided by 255, whatever it holds. Other integers are divided by the largest
    magnitude of the arrays of their dtype, or by 255 if they lie in 0 .. 255 beside an array of
    uint8. bool becomes 0 and 1. Floats are taken as they are: in 0 .. 1, or standardised.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Arrays of one data set by name.
    where : str
        The file, for messages.

    Returns
    -------
    list of ndarray

    Raises
    ------
    TypeError
        If they are no numbers.
    ValueError
        If an array has another number of axes, is empty or not finite; if one array has floats
        above 10 where another one lies in 0 .. 1; if the images' sizes differ.

    Examples
    --------
    >>> x = np.full((2, 8, 8), 51, np.uint8)
    >>> as_images({"x": x}, "a.npz")[0].shape, float(as_images({"x": x}, "a.npz")[0].max())
    ((2, 8, 8, 1), 0.20000000298023224)
    """
    for name, x in arrays.items():
        if x.dtype.kind not in "biuf":
            raise TypeError(f"{where}: {name}: expected numbers (images), got {x.dtype}")
        if x.ndim not in (3, 4) or 0 in x.shape:
            raise ValueError(f"{where}: {name}: expected (m, H, W) or (m, H, W, C), got {x.shape}")
    everything = list(arrays.values())
    images = [_scaled(name, x, everything, where) for name, x in arrays.items()]
    first, *others = images
    for image in others:
        if image.shape[1:] != first.shape[1:]:
            raise ValueError(
                f"{where}: training images are {first.shape[1:]}, test images {image.shape[1:]}"
            )
    _check_one_scale(dict(zip(arrays, images, strict=True)), arrays, where)
    return images


def pixel_scale(x: Array, beside: list[Array]) -> float:
    """What `as_images` divides `x` by; `beside` are the arrays of the data set, `x` among them.

    Examples
    --------
    >>> x = np.arange(4, dtype=np.uint8)
    >>> pixel_scale(x, [x]), pixel_scale(x.astype(int), []), pixel_scale(x / 3, [])
    (255.0, 3.0, 1.0)
    """
    if x.dtype.kind in "bf":
        return 1.0
    if x.dtype == np.uint8:
        return 255.0
    alike = [x, *(a for a in beside if a.dtype == x.dtype)]
    low, high = min(int(a.min()) for a in alike), max(int(a.max()) for a in alike)
    if low >= 0 and high <= 255 and any(a.dtype == np.uint8 for a in beside):
        return 255.0
    return float(max(-low, high) or 1)


def _scaled(name: str, x: Array, everything: list[Array], where: str) -> Array:
    scale = pixel_scale(x, everything)
    with np.errstate(all="ignore"):  # float64 beyond float32: infinity, which is refused below
        images = np.array(x, np.float32, order="C").reshape(*x.shape[:3], -1)  # (m, H, W, C)
    if scale != 1.0:
        images /= np.float32(scale)
    if not np.isfinite(images).all():
        raise ValueError(f"{where}: {name}: holds NaN or infinity")
    return images


def _check_one_scale(images: Mapping[str, Array], arrays: Mapping[str, Array], where: str) -> None:
    largest = {name: max(float(x.max()), -float(x.min())) for name, x in images.items()}
    low, high = min(largest, key=largest.__getitem__), max(largest, key=largest.__getitem__)
    if largest[low] <= 1 and largest[high] > OTHER_SCALE:
        raise ValueError(
            f"{where}: {high} holds {arrays[high].dtype} up to {largest[high]:g}, but {low} "
            f"({arrays[low].dtype}) is in 0 .. 1: floats are taken as they are, so give both one "
            "scale"
        )
