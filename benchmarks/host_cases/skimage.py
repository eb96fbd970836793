"""scikit-image's filters on a photograph, before and after `fastconv.adapters.scipy.install`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import skimage.data
import skimage.filters
from skimage.util import img_as_float32

import fastconv.adapters.scipy as adapter

from . import Case


def cases() -> list[Case]:
    photograph = img_as_float32(skimage.data.camera())  # 512x512
    filters = skimage.filters
    return [
        case("gaussian, sigma 3", lambda: filters.gaussian(photograph, 3)),
        case("difference_of_gaussians", lambda: filters.difference_of_gaussians(photograph, 1, 4)),
        case("unsharp_mask, radius 5", lambda: filters.unsharp_mask(photograph, radius=5)),
        case("sobel", lambda: filters.sobel(photograph)),
        case("farid", lambda: filters.farid(photograph)),
        case("laplace, 5x5", lambda: filters.laplace(photograph, 5)),
        case("gabor", lambda: filters.gabor(photograph, 0.2)),
        case("threshold_local, 35", lambda: filters.threshold_local(photograph, 35)),
    ]


def case(name: str, call: Callable[[], Any]) -> Case:
    """The call with SciPy's own functions, and with fastconv's in their place."""

    def ours() -> Any:
        adapter.install()
        try:
            return call()
        finally:
            adapter.uninstall()

    return Case(f"{name}, photograph of 512x512", call, ours)
