"""Random problems, small enough for the naive loops."""

from __future__ import annotations

from typing import Any

import numpy as np

# Shape of x, shape of w (or window), options.
Problem = tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]


def integers(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Small integers as floats: every sum below is exact in float32."""
    return rng.integers(-8, 9, shape).astype(dtype)


def layout(shape: tuple[int, ...], data_format: str) -> tuple[int, ...]:
    """A channels-last shape in `data_format`."""
    return shape if data_format == "channels_last" else (shape[0], shape[-1], *shape[1:-1])


def _axis_options(rng: np.random.Generator, rank: int, largest_stride: int) -> dict[str, Any]:
    stride = tuple(int(s) for s in rng.integers(1, largest_stride + 1, rank))
    dilation = tuple(int(d) for d in rng.choice([1, 1, 1, 2, 3], rank))
    return {"stride": stride, "dilation": dilation}


def _padding(rng: np.random.Generator, reach: list[int]) -> Any:
    """Any form of padding; numbers up to `reach` on each axis."""
    kind = rng.integers(6)
    if kind == 0:
        return str(rng.choice(["valid", "same", "full"]))
    if kind == 1:
        return int(rng.integers(0, min(reach) + 1))
    if kind == 2:
        return tuple(int(rng.integers(0, r + 1)) for r in reach)
    return tuple((int(rng.integers(0, r + 1)), int(rng.integers(0, r + 1))) for r in reach)


def _fits(x_size: list[int], window: list[int], dilation: tuple[int, ...]) -> list[int]:
    """Input sizes grown until the window fits without padding."""
    spans = [(k - 1) * d + 1 for k, d in zip(window, dilation, strict=True)]
    return [max(n, span) for n, span in zip(x_size, spans, strict=True)]


def random_conv(
    rng: np.random.Generator,
) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """(x_shape, w_shape, options) of a convolution, channels last."""
    rank = int(rng.choice([1, 2, 2, 2, 3]))
    top = {1: 9, 2: 6, 3: 4}[rank]
    options = _axis_options(rng, rank, 3)
    window = [int(k) for k in rng.integers(1, 4, rank)]
    x_size = _fits([int(n) for n in rng.integers(1, top + 1, rank)], window, options["dilation"])
    G = int(rng.choice([1, 1, 1, 2, 3]))
    C, F = G * int(rng.integers(1, 4)), G * int(rng.integers(1, 4))
    reach = [(k - 1) * d + 1 for k, d in zip(window, options["dilation"], strict=True)]
    options |= {"padding": _padding(rng, reach), "groups": G}
    m = int(rng.integers(1, 4))
    return (m, *x_size, C), (*window, C // G, F), options


def random_transpose(rng: np.random.Generator) -> Problem:
    """(x_shape, w_shape, options) of a transposed convolution, channels last."""
    rank = int(rng.choice([1, 2, 2, 2, 3]))
    top = {1: 7, 2: 4, 3: 3}[rank]
    options = _axis_options(rng, rank, 3)
    window = [int(k) for k in rng.integers(1, 4, rank)]
    x_size = [int(n) for n in rng.integers(2, top + 1, rank)]
    G = int(rng.choice([1, 1, 1, 2]))
    C, F = G * int(rng.integers(1, 4)), G * int(rng.integers(1, 3))
    axes = list(zip(x_size, window, options["stride"], options["dilation"], strict=True))
    room = [((n - 1) * s + (k - 1) * d) // 2 for n, k, s, d in axes]
    padding = "same" if rng.integers(6) == 0 else _padding(rng, [min(r, 2) for r in room])
    if padding == "full":
        padding = "valid"
    extra = tuple(int(rng.integers(0, max(s, d))) for _, _, s, d in axes)
    options |= {"padding": padding, "groups": G}
    options["output_padding"] = 0 if padding == "same" else extra
    m = int(rng.integers(1, 3))
    return (m, *x_size, C), (*window, F // G, C), options


def random_pool(
    rng: np.random.Generator,
) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """(x_shape, window, options) of a pooling, channels last."""
    rank = int(rng.choice([1, 2, 2, 2, 3]))
    top = {1: 12, 2: 7, 3: 5}[rank]
    options = _axis_options(rng, rank, 3)
    window = [int(k) for k in rng.integers(1, 4, rank)]
    x_size = _fits([int(n) for n in rng.integers(1, top + 1, rank)], window, options["dilation"])
    reach = [((k - 1) * d + 1) // 2 for k, d in zip(window, options["dilation"], strict=True)]
    padding = _padding(rng, reach)
    options |= {"padding": "valid" if padding == "full" else padding}
    options["ceil_mode"] = bool(rng.integers(2))
    m, C = int(rng.integers(1, 4)), int(rng.integers(1, 6))
    return (m, *x_size, C), tuple(window), options
