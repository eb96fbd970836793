"""Layers that make images larger: repetition, interpolation, moved channels, padding."""

from __future__ import annotations

from typing import Any, Literal

from fastconv.geometry.request import PADDING_MODES, Request
from fastconv.nn.base import Layer
from fastconv.nn.checks import Array, check_array, layer_error, plain, positive_int, quiet
from fastconv.nn.onnx import images as onnx
from fastconv.nn.registry import register
from fastconv.program.naive import resampling as naive_resampling
from fastconv.program.ops import resampling
from fastconv.typing import Int, Padding, PaddingMode

__all__ = ["Pad", "PixelShuffle", "Upsample"]


class _Resampling(Layer):
    """A linear map of each image; a class says which, in the words of `program.ops.resampling`."""

    def __init__(self) -> None:
        super().__init__()
        self._cache: tuple[tuple[int, ...], tuple[int, ...], Any] | None = None

    @property
    def _resampling(self) -> Any:
        return self._pick(resampling, naive_resampling)

    def _larger(self, x: Array) -> Array:
        raise NotImplementedError

    def _adjoint(self, dy: Array, sizes: tuple[int, ...]) -> Array:
        raise NotImplementedError

    @quiet
    def forward(self, x: Array) -> Array:
        """Map `x` (m, H, W, C); 1-D and 3-D images, too."""
        check_array("x", x, self)
        if not 3 <= x.ndim <= 5 or not all(x.shape[1:]):
            raise layer_error(ValueError, self, f"x: expected (m, H, W, C), got {x.shape}")
        y = self._larger(x)
        self._cache = (x.shape, y.shape, x.dtype)
        return y

    @quiet
    def backward(self, dy: Array) -> Array:
        """Return `dx`: every error goes to where its value came from."""
        x_shape, y_shape, dtype = self._saved(self._cache)
        self._check_dy(dy, y_shape, dtype)
        return self._adjoint(dy, x_shape[1:-1])


@register(onnx=onnx.upsample)
class Upsample(_Resampling):
    """Images larger by whole factors: (m, H, W, C) -> (m, H * factor, W * factor, C).

    Parameters
    ----------
    factor : int or tuple of int
        For all spatial axes, or one for each.
    mode : {"nearest", "bilinear"}
        Copies of each pixel; or linear interpolation between the centres of pixels, constant
        beyond the outermost (half-pixel centres: PyTorch's ``align_corners=False``), on each axis
        of 1-D to 3-D images.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> import numpy as np
    >>> Upsample(2, mode="bilinear").forward(np.array([[[0.0], [4.0]]])).ravel().tolist()
    [0.0, 1.0, 3.0, 4.0]
    """

    def __init__(self, factor: Int, mode: Literal["nearest", "bilinear"] = "nearest") -> None:
        super().__init__()
        given: Any = factor
        if isinstance(given, tuple | list):
            self.factor: Int = tuple(positive_int("factor", n) for n in given)
        else:
            self.factor = positive_int("factor", given)
        if mode not in ("nearest", "bilinear"):
            raise ValueError(f"mode: must be 'nearest' or 'bilinear', got {mode!r}")
        self.mode = mode

    def config(self) -> dict[str, Any]:
        """Constructor arguments as JSON types."""
        return {"factor": self.factor, "mode": self.mode}

    def factors(self, rank: int) -> tuple[int, ...]:
        """The factor of each of `rank` spatial axes."""
        if not isinstance(self.factor, tuple):
            return (self.factor,) * rank  # type: ignore[return-value]
        if len(self.factor) != rank:
            cause = f"factor: {self.factor} must be one number, or {rank}: one per spatial axis"
            raise layer_error(ValueError, self, cause)
        return self.factor

    def _larger(self, x: Array) -> Array:
        y: Array = getattr(self._resampling, self.mode)(x, self.factors(x.ndim - 2))
        return y

    def _adjoint(self, dy: Array, sizes: tuple[int, ...]) -> Array:
        function = getattr(self._resampling, f"{self.mode}_backward")
        dx: Array = function(dy, self.factors(len(sizes)))
        return dx


@register(onnx=onnx.pixel_shuffle)
class PixelShuffle(_Resampling):
    """Channels to pixels: (m, H, W, C * factor**2) -> (m, H * factor, W * factor, C).

    Shi et al. 2016. As in PyTorch, input channel ``c * factor**2 + i * factor + j`` becomes channel
    c of the pixels ``(h * factor + i, w * factor + j)``.

    Parameters
    ----------
    factor : int

    Raises
    ------
    TypeError, ValueError
        If it is none; in a pass, if it does not divide the channels so.

    Examples
    --------
    >>> import numpy as np
    >>> PixelShuffle(2).forward(np.arange(4.0).reshape(1, 1, 1, 4))[0, ..., 0].tolist()
    [[0.0, 1.0], [2.0, 3.0]]
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = positive_int("factor", factor)

    def config(self) -> dict[str, Any]:
        """Constructor arguments as JSON types."""
        return {"factor": self.factor}

    def _larger(self, x: Array) -> Array:
        parts = self.factor ** (x.ndim - 2)
        if x.shape[-1] % parts:
            cause = f"x: the channels must be a multiple of {parts}, got {x.shape}"
            raise layer_error(ValueError, self, cause)
        y: Array = self._resampling.pixel_shuffle(x, self.factor)
        return y

    def _adjoint(self, dy: Array, sizes: tuple[int, ...]) -> Array:
        dx: Array = self._resampling.pixel_shuffle_backward(dy, self.factor)
        return dx


@register(onnx=onnx.pad)
class Pad(_Resampling):
    """More pixels around each image, of what NumPy's modes put there.

    Parameters
    ----------
    padding : int, tuple of int, or tuple of (lo, hi) pairs
        As of `fastconv.conv`, but no names: for all spatial axes, or one entry for each.
    mode : {"constant", "reflect", "symmetric", "edge", "wrap"}
        As of `numpy.pad`; the constant is 0.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, here or (where it depends on the axes) in the first pass.

    Examples
    --------
    >>> import numpy as np
    >>> Pad(2, mode="reflect").forward(np.arange(3.0).reshape(1, 3, 1)).ravel().tolist()
    [2.0, 1.0, 0.0, 1.0, 2.0, 1.0, 0.0]
    """

    def __init__(
        self,
        padding: Padding,
        mode: PaddingMode = "constant",
    ) -> None:
        super().__init__()
        self.padding: Any = plain(padding)
        if mode not in PADDING_MODES:
            raise ValueError(
                f"mode: must be one of {', '.join(map(repr, PADDING_MODES))}, got {mode!r}"
            )
        if isinstance(self.padding, str):
            raise TypeError(f"padding: integers are needed, got {padding!r}")
        self.mode = mode
        self.pairs(len(self.padding) if isinstance(self.padding, tuple) else 1)

    def config(self) -> dict[str, Any]:
        """Constructor arguments as JSON types."""
        return {"padding": self.padding, "mode": self.mode}

    def pairs(self, rank: int) -> tuple[tuple[int, int], ...]:
        """The ``(lo, hi)`` of each of `rank` spatial axes."""
        pairs: Any = Request("channels_last", padding=self.padding).padding(rank)
        return tuple(pairs)

    def _larger(self, x: Array) -> Array:
        y: Array = self._resampling.pad(x, self.pairs(x.ndim - 2), self.mode)
        return y

    def _adjoint(self, dy: Array, sizes: tuple[int, ...]) -> Array:
        dx: Array = self._resampling.pad_backward(dy, sizes, self.pairs(len(sizes)), self.mode)
        return dx
