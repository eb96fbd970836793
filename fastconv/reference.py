"""Naive loops for every public function: the ground truth, and how backpropagation works.

Every function has the name, arguments and results of its fast twin in ``fastconv``. Use it to
check code of your own, or read it to learn: nothing here is clever, and it needs only NumPy.

Symbols: ``x, w, b, y`` are input, kernel, bias, output; ``dx, dw, db, dy`` the gradients of the
loss with respect to them (a "delta" is the gradient at a pre-activation ``z``). ``x`` is
``(m, H, W, C)``: images, height, width, channels; ``w`` is ``(KH, KW, C/G, F)`` with G groups and
F filters; ``y`` is ``(m, OH, OW, F)``. In 1-D there is only W, in 3-D there is D, H, W. Stride s,
padding p (lo, hi) and dilation d are per axis; a window spans ``eff = (KH - 1)*d + 1`` cells.

One picture carries all functions. For output pixel ``i`` and window tap ``u`` the window touches

    input cell  h = i*s + u*d - lo                (`_Grid.cell`; on each spatial axis)

and every function is a loop over the triples ``(i, u, h)`` whose cell lies inside the input
(`_Grid.steps`; a cell in the padding adds nothing). Forward reads h and writes i; backward walks
the same triples and reads i and writes h: an error returns along the path its value came by.

A network with one convolution
------------------------------
Image x, label y in {0, 1}: convolution, ReLU, 2x2 maximum, dense layer, sigmoid, cross-entropy.

    (1)  z1 = conv(x, w1) + b1           z1[i,j] = b1 + sum_uv x[i+u, j+v] w1[u,v]
    (2)  a1 = max(z1, 0)
    (3)  a2 = max_pool(a1, 2)            and remember each window's winner (its argmax)
    (4)  z3 = a2 @ w3 + b3               a2 flattened to a row
    (5)  a3 = 1 / (1 + exp(-z3))
    (6)  L  = -y log(a3) - (1 - y) log(1 - a3)

Backward, the chain rule from the loss to the image:

    (7)  dL/dz3 = a3 - y                 sigmoid and cross-entropy cancel to a difference
    (8)  dL/da2 = dL/dz3 @ w3.T          also dw3 = a2.T @ dL/dz3 and db3 = dL/dz3
    (9)  dL/da1 = max_pool_backward      all of a window's error goes to its winner; the other
                                         three cells did not touch the loss: exactly zero
    (10) delta1 = dL/da1 * (z1 > 0)      where ReLU was flat, nothing passes
    (11) dw1[u,v] = sum_ij delta1[i,j] x[i+u, j+v]     and     db1 = sum_ij delta1[i,j]

Equation (11) holds because w1[u,v] met x[i+u, j+v] at every pixel (i, j) of z1, and only there.

Two convolutions
----------------
c1 -> f -> subsampling -> c2, where c2 has stride 1: cell h of c2's input fed the pixels
``i = h - u`` of its output, each through tap u. Running u forwards over the window runs i
backwards over c2's delta, so

    dL/d(input of c2) = full convolution of c2's delta with w2 flipped on both axes
                      = col2im(c2's delta @ w2.T)
    delta of c1       = upsample(dL/d(input of c2)) * f'(z of c1)

where upsample undoes the subsampling: after a maximum each error goes to its winner, after a mean
it is spread evenly over the window. f' is z > 0 for ReLU, a(1 - a) for the sigmoid. With numbers:
``python -m fastconv explain --model two_conv``.

Arguments shared by the functions
---------------------------------
stride, dilation, window : int, or one int per spatial axis. A pool's stride=None is its window.
padding : int; one int or one (lo, hi) pair per axis; "valid" (none), "same" (OH = ceil(H/s), the
    odd cell on the high side) or "full" (eff - 1 on both sides).
padding_mode : what stands in the padding: zeros ("constant"), or copies of cells as NumPy's pad
    makes them: "reflect", "symmetric", "edge", "wrap".
data_format : "channels_last", or "channels_first" for (m, C, H, W) arrays; w never changes.
activation : None or "relu", applied to the output; a backward takes dy before the activation.
algorithm : "exact" or "fast", and ignored here: the loops are what both are measured by.
need : the gradients that a backward computes, of "x", "w", "b"; the others are None.
out : array to write the result to (a backward of three: three arrays or None); right shape and
    dtype, no overlap with an input.

Arrays are float16, float32 or float64, one dtype per call, which the result has too; float16 sums
are kept in float32. What does not fit is a ValueError, a wrong type a TypeError.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, Literal, NamedTuple, SupportsIndex, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ConvGrads",
    "avg_pool",
    "avg_pool_backward",
    "col2im",
    "conv",
    "conv_backward",
    "conv_input_grad",
    "conv_kernel_grad",
    "conv_transpose",
    "conv_transpose_backward",
    "im2col",
    "max_pool",
    "max_pool_backward",
    "relu_backward",
]

Ints = SupportsIndex | Sequence[SupportsIndex]
PaddingName = Literal["valid", "same", "full"]
PaddingMode = Literal["constant", "reflect", "symmetric", "edge", "wrap"]
PADDING_MODES = ("constant", "reflect", "symmetric", "edge", "wrap")
Padding = PaddingName | SupportsIndex | Sequence[SupportsIndex | Sequence[SupportsIndex]]
DataFormat = Literal["channels_last", "channels_first"]
Operand = Literal["x", "w", "b"]
Algorithm = Literal["exact", "fast"]
Sizes = Sequence[SupportsIndex]
Index = tuple[int, ...]
Array = NDArray[np.floating[Any]]
Indices = NDArray[np.int64]
# Floating-point flags: no function warns or raises, whatever the caller's numpy.errstate.
quiet = np.errstate(all="ignore")
Gradient = TypeVar("Gradient", covariant=True)  # Array, or None where it was not needed
Cells = Any  # an Array; mypy cannot type an index with a star, such as y[n, *i]


class ConvGrads(NamedTuple, Generic[Gradient]):
    """Gradients with respect to x, w and b; None for one that was not in ``need``."""

    dx: Gradient
    dw: Gradient
    db: Gradient


# ---- geometry: which input cell lies under which tap ------------------------------------------


class _Grid(NamedTuple):
    """Positions of a window over an input; each field has one entry per spatial axis."""

    sizes: Index  # of the input: H, W
    pixels: Index  # of the output: OH, OW
    window: Index  # KH, KW
    stride: Index
    dilation: Index
    pads: tuple[Index, ...]  # (lo, hi)
    # Of every axis the cell that each of the padded input is a copy of; none: zeros stand outside.
    copies: tuple[Index, ...] = ()

    def cell(self, i: Index, u: Index) -> Index:
        """Input cell under tap u of the window at output pixel i; it may lie in the padding."""
        axes = zip(i, self.stride, u, self.dilation, self.pads, strict=True)
        return tuple(a * s + t * d - lo for a, s, t, d, (lo, _) in axes)

    def inside(self, h: Index, include_pad: bool = False) -> bool:
        """Whether h is a cell of the input (of the padded input, if padding is included)."""
        axes = zip(h, self.sizes, self.pads, strict=True)
        return all(-lo * include_pad <= a < n + hi * include_pad for a, n, (lo, hi) in axes)

    def steps(self) -> Iterator[tuple[Index, Index, Index]]:
        """Every (output pixel i, tap u, input cell h) with h inside the input, in scan order.

        Where copies of cells stand in the padding, h is the cell that was copied.
        """
        for i in np.ndindex(self.pixels):
            for u in np.ndindex(self.window):
                h = self.cell(i, u)
                if self.copies:
                    axes = zip(self.copies, h, self.pads, strict=True)
                    h = tuple(cells[a + lo] for cells, a, (lo, _) in axes)
                if self.inside(h):
                    yield i, u, h

    def divisor(self, i: Index, include_pad: bool) -> int:
        """Cells of the window at pixel i that are inside the (padded) input."""
        return sum(self.inside(self.cell(i, u), include_pad) for u in np.ndindex(self.window))


def _ints(name: str, value: Ints, length: int, low: int) -> Index:
    """``value`` as ``length`` integers, none below ``low``."""
    values = value if isinstance(value, (Sequence, np.ndarray)) else (value,) * length
    result = tuple(operator.index(v) for v in values)
    if any(isinstance(v, bool) for v in values):
        raise TypeError(f"{name} must be made of integers; got {value!r}")
    if len(result) != length or any(v < low for v in result):
        raise ValueError(f"{name} must be {length} integer(s), at least {low}; got {value!r}")
    return result


def _pads(padding: Padding, spans: Index, same: list[int]) -> tuple[Index, ...]:
    """(lo, hi) per axis, for windows that span ``spans``; ``same`` are the totals of "same"."""
    if isinstance(padding, str):
        totals = {"valid": [0] * len(spans), "same": same, "full": [2 * e - 2 for e in spans]}
        if padding not in totals:
            raise ValueError(f"padding must be integers or one of {list(totals)}; got {padding!r}")
        return tuple((total // 2, total - total // 2) for total in totals[padding])
    pairs: Any = padding if isinstance(padding, (Sequence, np.ndarray)) else [padding] * len(spans)
    if len(pairs) != len(spans):
        raise ValueError(f"padding needs {len(spans)} entries, one per axis; got {padding!r}")
    return tuple(_ints("padding", pair, 2, 0) for pair in pairs)


def _grid(
    shape: Index, window: Ints, stride: Ints | None, padding: Padding, dilation: Ints,
    ceil_mode: bool = False, pool: bool = False,
) -> _Grid:  # fmt: skip
    """Windows that fit into the padded x (``shape``, channels last); ceil_mode: and one more."""
    sizes = shape[1:-1]
    window = _ints("window", window, len(sizes), 1)
    stride = window if stride is None else _ints("stride", stride, len(sizes), 1)
    dilation = _ints("dilation", dilation, len(sizes), 1)
    spans = tuple((k - 1) * d + 1 for k, d in zip(window, dilation, strict=True))
    axes = list(zip(sizes, stride, spans, strict=True))
    pads = _pads(padding, spans, [max((-(-n // s) - 1) * s + e - n, 0) for n, s, e in axes])
    pixels = []
    for (n, s, span), (lo, hi) in zip(axes, pads, strict=True):
        room = n + lo + hi - span  # how far the first window can slide
        count = 1 + (-(-room // s) if ceil_mode else room // s)
        if ceil_mode and (count - 1) * s >= n + lo:
            count -= 1  # the last window would start in the high padding
        pixels.append(count)
    grid = _Grid(sizes, tuple(pixels), window, stride, dilation, pads)
    if not 3 <= len(shape) <= 5 or min(shape[1:]) < 1 or min(pixels) < 1:
        raise ValueError(f"the window does not fit into the padded input {shape}: {grid}")
    if pool and any(2 * max(pair) > span for pair, span in zip(pads, spans, strict=True)):
        raise ValueError(f"the padding of a pool is at most half its window: {grid}")
    return grid


def _conv_grid(
    shape: Index, w: Index, stride: Ints, padding: Padding, dilation: Ints, groups: int,
    padding_mode: str = "constant",
) -> tuple[_Grid, Index]:  # fmt: skip
    """Geometry of a convolution of x (``shape``) with a kernel of shape ``w``; shape of y."""
    _check_kernel(w, len(shape), groups)
    if shape[-1] != w[-2] * groups:
        raise ValueError(f"w {w} takes {w[-2]} * {groups} channels, x {shape} has {shape[-1]}")
    grid = _grid(shape, w[:-2], stride, padding, dilation)
    if padding_mode not in PADDING_MODES:
        raise ValueError(f"padding_mode must be one of {PADDING_MODES}; got {padding_mode!r}")
    if padding_mode != "constant":
        cells = [np.arange(n) for n in grid.sizes]
        copies: Any = [np.pad(a, p, padding_mode) for a, p in zip(cells, grid.pads, strict=True)]  # type: ignore[call-overload]
        grid = grid._replace(copies=tuple(tuple(a.tolist()) for a in copies))
    return grid, (shape[0], *grid.pixels, w[-1])


def _transposed_grid(
    shape: Index, w: Index, stride: Ints, padding: Padding, extra: Ints, dilation: Ints, groups: int
) -> tuple[_Grid, Index]:
    """Geometry of the convolution from y to x that `conv_transpose` walks backwards; y's shape."""
    _check_kernel(w, len(shape), groups)
    pixels, rank, same = shape[1:-1], len(shape) - 2, padding == "same"
    stride, dilation = _ints("stride", stride, rank, 1), _ints("dilation", dilation, rank, 1)
    spans = tuple((k - 1) * d + 1 for k, d in zip(w[:-2], dilation, strict=True))
    pads = _pads(padding, spans, [max(e - s, 0) for e, s in zip(spans, stride, strict=True)])
    extra = _ints("output_padding", extra, rank, 0)
    sizes = []
    axes = zip(pixels, stride, dilation, spans, pads, extra, strict=True)
    for n, s, d, span, (lo, hi), more in axes:
        if more >= (1 if same else max(s, d)):
            raise ValueError(f"output_padding {extra} is not below stride or dilation, or not 0")
        sizes.append(n * s if same else (n - 1) * s - lo - hi + span + more)
    if shape[-1] != w[-1] or min(shape[1:]) < 1 or min(sizes) < 1:
        raise ValueError(f"conv_transpose of x {shape} with w {w} gives spatial sizes {sizes}")
    grid = _Grid(tuple(sizes), pixels, w[:-2], stride, dilation, pads)
    return grid, (shape[0], *sizes, w[-2] * groups)


def _check_kernel(w: Index, ndim: int, groups: int) -> None:
    if len(w) != ndim or not 3 <= ndim <= 5 or min(w) < 1:
        raise ValueError(f"w needs {ndim} axes (3, 4 or 5), none of them empty; its shape is {w}")
    if operator.index(groups) < 1 or w[-1] % groups:
        raise ValueError(f"groups={groups} must be positive and divide {w[-1]}, w's last axis")


# ---- arrays: in, and out ----------------------------------------------------------------------


def _is_first(data_format: str) -> bool:
    if data_format not in ("channels_last", "channels_first"):
        raise ValueError(f"data_format must be channels_last or channels_first: {data_format!r}")
    return data_format == "channels_first"


def _load(
    data_format: str, kinds: str = "f", **operands: Array | None
) -> tuple[list[Any], Callable[..., Any]]:
    """Operands in the dtype that sums are kept in, images channels last; and the way back."""
    first = _is_first(data_format)
    given = {name: np.asanyarray(a) for name, a in operands.items() if a is not None}
    dtype = next(iter(given.values())).dtype.newbyteorder("=")
    for name, a in given.items():
        if isinstance(a, np.ma.MaskedArray):
            raise TypeError(f"{name} is a masked array; its mask would be ignored")
        if a.dtype.newbyteorder("=") != dtype or not _has_kind(dtype, kinds):
            raise TypeError(f"operands must share one float dtype; {name} has {a.dtype}")
    arrays: list[Any] = []
    for name, operand in operands.items():
        if operand is not None:
            operand = np.asarray(operand, np.float32 if dtype == "f2" else dtype)
            operand = np.moveaxis(operand, 1, -1) if first and name in ("x", "dy") else operand
        arrays.append(operand)

    def store(result: Array, out: Array | None, image: bool = True, dtype: Any = dtype) -> Any:
        """``result`` in the caller's dtype and data format, in ``out`` if there is one."""
        result = np.moveaxis(result, -1, 1) if first and image else result
        result = np.ascontiguousarray(result, dtype)
        if out is None:
            return result
        if out.shape != result.shape or out.dtype != dtype or not out.flags.writeable:
            raise ValueError(f"out must be a writeable {dtype} array of shape {result.shape}")
        if any(np.shares_memory(out, a) for a in given.values()):
            raise ValueError("out overlaps an input")
        out[...] = result
        return out

    return arrays, store


def _has_kind(dtype: np.dtype[Any], kinds: str) -> bool:
    """Whether a dtype is one of three floats, or of kinds of integers that are taken too."""
    return dtype in ("f2", "f4", "f8") or (dtype.kind in kinds and dtype.kind != "f")


def _shape(name: str, shape: Ints, data_format: str, ndim: int) -> Index:
    """A shape argument as a tuple, channels last."""
    sizes = _ints(name, shape if isinstance(shape, (Sequence, np.ndarray)) else (shape,), ndim, 0)
    return (sizes[0], *sizes[2:], sizes[1]) if _is_first(data_format) else sizes


def _expect(name: str, array: NDArray[Any], shape: Index) -> None:
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape} (channels last); got {array.shape}")


def _finish(y: Array, b: Array | None, activation: str | None) -> Array:
    """Add the bias at every pixel, then activate: equation (2)."""
    if activation not in (None, "relu"):
        raise ValueError(f"activation must be None or 'relu'; got {activation!r}")
    if b is not None:
        _expect("b", b, y.shape[-1:])
        y = y + b
    return y if activation is None else np.maximum(y, 0)


# ---- the three sums: one loop, three roles ----------------------------------------------------


def _groups(channels: int, filters: int, groups: int) -> Iterator[tuple[slice, slice]]:
    """(c, f) of each group: its filters f see its channels c and no others."""
    size_c, size_f = channels // groups, filters // groups
    for g in range(groups):
        yield slice(g * size_c, (g + 1) * size_c), slice(g * size_f, (g + 1) * size_f)


def _output(x: Cells, w: Cells, grid: _Grid, groups: int) -> Array:
    """y[i] = sum w[u] x[h]: the cells under the window, each weighed by its tap."""
    m, F = len(x), w.shape[-1]
    y: Cells = np.zeros((m, *grid.pixels, F), x.dtype)
    for i, u, h in grid.steps():
        for n in range(m):
            for c, f in _groups(x.shape[-1], F, groups):
                y[n, *i, f] += x[n, *h, c] @ w[*u, :, f]
    return y


def _input_grad(dy: Cells, w: Cells, grid: _Grid, groups: int) -> Array:
    """dx[h] = sum w[u] dy[i]: the error of a pixel goes back through the taps it came by."""
    m, C = len(dy), w.shape[-2] * groups
    dx: Cells = np.zeros((m, *grid.sizes, C), dy.dtype)
    for i, u, h in grid.steps():
        for n in range(m):
            for c, f in _groups(C, dy.shape[-1], groups):
                dx[n, *h, c] += w[*u, :, f] @ dy[n, *i, f]
    return dx


def _kernel_grad(x: Cells, dy: Cells, grid: _Grid, groups: int) -> Array:
    """dw[u] = sum x[h] dy[i]: what a tap saw, times the error of the pixel it saw it for."""
    C, F = x.shape[-1], dy.shape[-1]
    dw: Cells = np.zeros((*grid.window, C // groups, F), x.dtype)
    for i, u, h in grid.steps():
        for n in range(len(x)):
            for c, f in _groups(C, F, groups):
                dw[*u, :, f] += x[n, *h, c, None] * dy[n, *i, f]
    return dw


def _bias_grad(dy: Array) -> Array:
    """``db = sum dy[i]``: the bias was added at every pixel."""
    db = np.zeros(dy.shape[-1:], dy.dtype)
    for i in np.ndindex(dy.shape[:-1]):
        db += dy[i]
    return db


def _backward(
    need: Iterable[str], out: Sequence[Array | None] | None, store: Callable[..., Array],
    **sums: Callable[[], Array],
) -> ConvGrads[Array | None]:  # fmt: skip
    """Run the sums (x=, w=, b=) whose results are needed."""
    names = {need} if isinstance(need, str) else set(need)
    if not names <= set(sums):
        raise ValueError(f"need may hold 'x', 'w' and 'b'; got {need!r}")
    pairs = zip(sums.items(), (None,) * 3 if out is None else out, strict=True)
    grads = [store(f(), o, name == "x") if name in names else None for (name, f), o in pairs]
    return ConvGrads(*grads)


# ---- convolution ------------------------------------------------------------------------------


@quiet
def conv(
    x: Array, w: Array, b: Array | None = None, *, stride: Ints = 1, padding: Padding = 0,
    dilation: Ints = 1, groups: int = 1, data_format: DataFormat = "channels_last",
    activation: Literal["relu"] | None = None, padding_mode: PaddingMode = "constant",
    out: Array | None = None, algorithm: Algorithm | None = None,
) -> Array:  # fmt: skip
    """Convolution, equation (1): x (m, H, W, C), w (KH, KW, C/G, F), b (F,) -> y (m, OH, OW, F).

        y[n, i, j, f] = b[f] + sum_uvc x[n, i*s + u*d - lo, j*s + v*d - lo, c] w[u, v, c, f]

    The kernel is not flipped (as everywhere in deep learning). With G groups, the g-th F/G
    filters see only the g-th C/G channels. OH windows fit whole into the padded height.

    >>> x = np.arange(9.0).reshape(1, 3, 3, 1)
    >>> conv(x, np.ones((2, 2, 1, 1)))[0, :, :, 0]
    array([[ 8., 12.],
           [20., 24.]])
    """
    (x, w, b), store = _load(data_format, x=x, w=w, b=b)
    grid, _ = _conv_grid(x.shape, w.shape, stride, padding, dilation, groups, padding_mode)
    return store(_finish(_output(x, w, grid, groups), b, activation), out)


@quiet
def conv_input_grad(
    dy: Array, w: Array, x_shape: Sizes, *, stride: Ints = 1, padding: Padding = 0,
    dilation: Ints = 1, groups: int = 1, data_format: DataFormat = "channels_last",
    padding_mode: PaddingMode = "constant", out: Array | None = None,
    algorithm: Algorithm | None = None,
) -> Array:  # fmt: skip
    """How a layer's delta reaches the layer below: dy (m, OH, OW, F), w -> dx (m, H, W, C).

        dx[n, h, c] = sum of dy[n, i, f] w[u, c, f] over f and all (i, u) with h = i*s + u*d - lo

    At stride 1 this is the full convolution of dy with w flipped on its spatial axes, channels
    and filters exchanged. A cell that no window touched gets zero: a stride may leave cells over,
    which is why the shape of x is an argument.

    >>> conv_input_grad(np.ones((1, 2, 2, 1)), np.ones((2, 2, 1, 1)), (1, 3, 3, 1))[0, :, :, 0]
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    """
    (dy, w), store = _load(data_format, dy=dy, w=w)
    shape = _shape("x_shape", x_shape, data_format, w.ndim)
    grid, y_shape = _conv_grid(shape, w.shape, stride, padding, dilation, groups, padding_mode)
    _expect("dy", dy, y_shape)
    return store(_input_grad(dy, w, grid, groups), out)


@quiet
def conv_kernel_grad(
    x: Array, dy: Array, w_shape: Sizes, *, stride: Ints = 1, padding: Padding = 0,
    dilation: Ints = 1, groups: int = 1, data_format: DataFormat = "channels_last",
    padding_mode: PaddingMode = "constant", out: Array | None = None,
    algorithm: Algorithm | None = None,
) -> Array:  # fmt: skip
    """Equation (11), the input convolved with the delta: x, dy -> dw (KH, KW, C/G, F).

        dw[u, c, f] = sum_ni dy[n, i, f] x[n, i*s + u*d - lo, c]

    >>> x, dy = np.arange(9.0).reshape(1, 3, 3, 1), np.ones((1, 2, 2, 1))
    >>> conv_kernel_grad(x, dy, (2, 2, 1, 1))[:, :, 0, 0]
    array([[ 8., 12.],
           [20., 24.]])
    """
    (x, dy), store = _load(data_format, x=x, dy=dy)
    shape = _shape("w_shape", w_shape, "channels_last", x.ndim)
    grid, y_shape = _conv_grid(x.shape, shape, stride, padding, dilation, groups, padding_mode)
    _expect("dy", dy, y_shape)
    return store(_kernel_grad(x, dy, grid, groups), out, image=False)


@overload
def conv_backward(
    dy: Array, x: Array, w: Array, *, stride: Ints = 1, padding: Padding = 0, dilation: Ints = 1,
    groups: int = 1, data_format: DataFormat = "channels_last",
    padding_mode: PaddingMode = "constant", out: Sequence[Array | None] | None = None,
    algorithm: Algorithm | None = None,
) -> ConvGrads[Array]: ...  # fmt: skip


@overload
def conv_backward(
    dy: Array, x: Array, w: Array, *, stride: Ints = 1, padding: Padding = 0, dilation: Ints = 1,
    groups: int = 1, data_format: DataFormat = "channels_last",
    padding_mode: PaddingMode = "constant",
    need: Operand | Iterable[Operand], out: Sequence[Array | None] | None = None,
    algorithm: Algorithm | None = None,
) -> ConvGrads[Array | None]: ...  # fmt: skip


@quiet
def conv_backward(
    dy: Array, x: Array, w: Array, *, stride: Ints = 1, padding: Padding = 0, dilation: Ints = 1,
    groups: int = 1, data_format: DataFormat = "channels_last",
    padding_mode: PaddingMode = "constant",
    need: Operand | Iterable[Operand] = ("x", "w", "b"), out: Sequence[Array | None] | None = None,
    algorithm: Algorithm | None = None,
) -> ConvGrads[Array | None]:  # fmt: skip
    """All gradients of `conv`; ``db[f]`` is the sum of dy over images and pixels.

    >>> x, w = np.ones((2, 5, 5, 3)), np.ones((3, 3, 3, 4))
    >>> [g.shape for g in conv_backward(conv(x, w), x, w)]
    [(2, 5, 5, 3), (3, 3, 3, 4), (4,)]
    """
    (dy, x, w), store = _load(data_format, dy=dy, x=x, w=w)
    grid, y_shape = _conv_grid(x.shape, w.shape, stride, padding, dilation, groups, padding_mode)
    _expect("dy", dy, y_shape)
    return _backward(
        need, out, store,
        x=lambda: _input_grad(dy, w, grid, groups),
        w=lambda: _kernel_grad(x, dy, grid, groups),
        b=lambda: _bias_grad(dy),
    )  # fmt: skip


@quiet
def conv_transpose(
    x: Array, w: Array, b: Array | None = None, *, stride: Ints = 1, padding: Padding = 0,
    output_padding: Ints = 0, dilation: Ints = 1, groups: int = 1,
    data_format: DataFormat = "channels_last", activation: Literal["relu"] | None = None,
    out: Array | None = None,
    algorithm: Algorithm | None = None,
) -> Array:  # fmt: skip
    """A convolution's input gradient as a layer: x (m, H, W, C), w (KH, KW, F/G, C) -> y.

        y[n, i*s + u*d - lo, f] += x[n, i, c] w[u, f, c]          and + b[f]

    Each pixel of x paints the kernel onto y (m, OH, OW, F), where OH = (H - 1)*s - lo - hi + eff
    + output_padding, or H*s if padding is "same". w is the kernel of the convolution from y to x;
    output_padding, less than stride or dilation, adds cells to the high side of y.

    >>> conv_transpose(np.ones((1, 2, 1)), np.array([[[1.0]], [[2.0]], [[3.0]]]), stride=2)[0, :, 0]
    array([1., 2., 4., 2., 3.])
    """
    (x, w, b), store = _load(data_format, x=x, w=w, b=b)
    options = stride, padding, output_padding, dilation, groups
    grid, _ = _transposed_grid(x.shape, w.shape, *options)
    return store(_finish(_input_grad(x, w, grid, groups), b, activation), out)


@overload
def conv_transpose_backward(
    dy: Array, x: Array, w: Array, *, stride: Ints = 1, padding: Padding = 0,
    output_padding: Ints = 0, dilation: Ints = 1, groups: int = 1,
    data_format: DataFormat = "channels_last", out: Sequence[Array | None] | None = None,
    algorithm: Algorithm | None = None,
) -> ConvGrads[Array]: ...  # fmt: skip


@overload
def conv_transpose_backward(
    dy: Array, x: Array, w: Array, *, stride: Ints = 1, padding: Padding = 0,
    output_padding: Ints = 0, dilation: Ints = 1, groups: int = 1,
    data_format: DataFormat = "channels_last", need: Operand | Iterable[Operand],
    out: Sequence[Array | None] | None = None,
    algorithm: Algorithm | None = None,
) -> ConvGrads[Array | None]: ...  # fmt: skip


@quiet
def conv_transpose_backward(
    dy: Array, x: Array, w: Array, *, stride: Ints = 1, padding: Padding = 0,
    output_padding: Ints = 0, dilation: Ints = 1, groups: int = 1,
    data_format: DataFormat = "channels_last", need: Operand | Iterable[Operand] = ("x", "w", "b"),
    out: Sequence[Array | None] | None = None,
    algorithm: Algorithm | None = None,
) -> ConvGrads[Array | None]:  # fmt: skip
    """All gradients of `conv_transpose`: those of a convolution, x and dy exchanged.

    Forward walked the convolution from y to x backwards. So ``dx`` is that convolution of dy, and
    ``dw`` pairs dy, as the image, with x, as the delta.

    >>> x, w = np.ones((2, 3, 3, 4)), np.ones((2, 2, 3, 4))
    >>> [g.shape for g in conv_transpose_backward(conv_transpose(x, w), x, w)]
    [(2, 3, 3, 4), (2, 2, 3, 4), (3,)]
    """
    (dy, x, w), store = _load(data_format, dy=dy, x=x, w=w)
    options = stride, padding, output_padding, dilation, groups
    grid, y_shape = _transposed_grid(x.shape, w.shape, *options)
    _expect("dy", dy, y_shape)
    return _backward(
        need, out, store,
        x=lambda: _output(dy, w, grid, groups),
        w=lambda: _kernel_grad(dy, x, grid, groups),
        b=lambda: _bias_grad(dy),
    )  # fmt: skip


@quiet
def relu_backward(dy: Array, y: Array, *, out: Array | None = None) -> Array:
    """Equation (10): the error passes where y (or z; the sign is the same) is positive.

    >>> relu_backward(np.array([1.0, 2.0]), np.array([0.0, 5.0]))
    array([0., 2.])
    """
    (dy, y), store = _load("channels_last", dy=dy, y=y)
    _expect("y", y, dy.shape)
    return store(np.where(y > 0, dy, dy.dtype.type(0)), out)


# ---- pooling ----------------------------------------------------------------------------------


@overload
def max_pool(
    x: Array, window: Ints, *, stride: Ints | None = None, padding: Padding = 0,
    dilation: Ints = 1, ceil_mode: bool = False, return_argmax: Literal[False] = False,
    data_format: DataFormat = "channels_last", out: Array | None = None,
) -> Array: ...  # fmt: skip


@overload
def max_pool(
    x: Array, window: Ints, *, stride: Ints | None = None, padding: Padding = 0,
    dilation: Ints = 1, ceil_mode: bool = False, return_argmax: Literal[True],
    data_format: DataFormat = "channels_last", out: Array | None = None,
) -> tuple[Array, Indices]: ...  # fmt: skip


@quiet
def max_pool(
    x: Array, window: Ints, *, stride: Ints | None = None, padding: Padding = 0,
    dilation: Ints = 1, ceil_mode: bool = False, return_argmax: bool = False,
    data_format: DataFormat = "channels_last", out: Array | None = None,
) -> Array | tuple[Array, Indices]:  # fmt: skip
    """Equation (3), the largest cell of each window: x (m, H, W, C) -> y (m, OH, OW, C).

    With ``return_argmax`` also an int64 array like y: where the winner was, as h*W + w. The first
    of equal cells wins, and the first NaN wins over everything. The padding is minus infinity and
    never wins; a window with no cell inside x gives -inf and argmax -1. ``ceil_mode`` keeps a last
    window that sticks out, unless it would start in the high padding. Integers and bool are pooled
    as they are; their least number stands for minus infinity.

    >>> y, argmax = max_pool(np.array([[[3.0], [7.0], [5.0], [5.0]]]), 2, return_argmax=True)
    >>> y[0, :, 0], argmax[0, :, 0]
    (array([7., 5.]), array([1, 2]))
    """
    (x,), store = _load(data_format, "fbiu", x=x)
    grid = _grid(x.shape, window, stride, padding, dilation, ceil_mode, pool=True)
    kind: Any = x.dtype
    least = {"f": -np.inf, "b": False}[kind.kind] if kind.kind in "fb" else np.iinfo(kind).min
    y: Cells = np.full((len(x), *grid.pixels, x.shape[-1]), least, x.dtype)
    argmax: Cells = np.full(y.shape, -1, np.int64)
    for i, _, h in grid.steps():
        position = np.ravel_multi_index(h, grid.sizes)
        for n in range(len(x)):
            cell, best, winner = x[n, *h], y[n, *i], argmax[n, *i]  # (C,) each
            wins = (winner < 0) | (cell > best) | (np.isnan(cell) & ~np.isnan(best))
            y[n, *i] = np.where(wins, cell, best)
            argmax[n, *i] = np.where(wins, position, winner)
    y = store(y, out)
    return (y, store(argmax, None, dtype=np.int64)) if return_argmax else y


@quiet
def max_pool_backward(
    dy: Array, argmax: Indices, x_shape: Sizes, window: Ints, *, stride: Ints | None = None,
    padding: Padding = 0, dilation: Ints = 1, ceil_mode: bool = False,
    data_format: DataFormat = "channels_last", out: Array | None = None,
) -> Array:  # fmt: skip
    """Equation (9): each window's error goes to its winner, every other cell gets exactly zero.

    dy and argmax (m, OH, OW, C) -> dx (m, H, W, C). Windows may overlap: a cell that won several
    times collects all their errors. A window without a cell has argmax -1: its error goes nowhere.

    >>> dy, argmax = np.array([[[0.5], [0.25]]]), np.array([[[1], [2]]])
    >>> max_pool_backward(dy, argmax, (1, 4, 1), 2)[0, :, 0]
    array([0.  , 0.5 , 0.25, 0.  ])
    """
    (dy,), store = _load(data_format, dy=dy)
    shape = _shape("x_shape", x_shape, data_format, dy.ndim)
    grid = _grid(shape, window, stride, padding, dilation, ceil_mode, pool=True)
    winners: Cells = np.asarray(argmax)
    argmax = winners = np.moveaxis(winners, 1, -1) if _is_first(data_format) else winners
    _expect("dy", dy, (shape[0], *grid.pixels, shape[-1]))
    _expect("argmax", argmax, dy.shape)
    cells = int(np.prod(grid.sizes))
    if argmax.dtype != np.int64 or np.any((argmax < -1) | (argmax >= cells)):
        raise ValueError(f"argmax must be int64, from -1 to {cells - 1}; it is {argmax.dtype}")
    for i in {i for i, _, _ in grid.steps()}:  # windows that have a cell
        if np.any(winners[:, *i] < 0):
            raise ValueError(f"argmax is -1 for the window at {i}, which has a cell")
    dx: Cells = np.zeros(shape, dy.dtype)
    for at in np.ndindex(dy.shape):  # n, i, j, c
        if argmax[at] >= 0:
            dx[at[0], *np.unravel_index(argmax[at], grid.sizes), at[-1]] += dy[at]
    return store(dx, out)


@quiet
def avg_pool(
    x: Array, window: Ints, *, stride: Ints | None = None, padding: Padding = 0,
    dilation: Ints = 1, ceil_mode: bool = False, count_include_pad: bool = False,
    data_format: DataFormat = "channels_last", out: Array | None = None,
) -> Array:  # fmt: skip
    """Mean of each window, the sum of its cells inside x over a count: x -> y (m, OH, OW, C).

    Counted are the window's cells inside x or, with ``count_include_pad``, inside the padded x.
    A window with no cell inside x gives 0. ``ceil_mode`` is as for `max_pool`.

    >>> avg_pool(np.array([[[3.0], [7.0], [5.0]]]), 2, ceil_mode=True)[0, :, 0]
    array([5., 5.])
    """
    (x,), store = _load(data_format, x=x)
    grid = _grid(x.shape, window, stride, padding, dilation, ceil_mode, pool=True)
    y: Cells = np.zeros((len(x), *grid.pixels, x.shape[-1]), x.dtype)
    for i, _, h in grid.steps():
        for n in range(len(x)):
            y[n, *i] += x[n, *h]
    for i in np.ndindex(grid.pixels):
        y[:, *i] /= max(grid.divisor(i, count_include_pad), 1)
    return store(y, out)


@quiet
def avg_pool_backward(
    dy: Array, x_shape: Sizes, window: Ints, *, stride: Ints | None = None,
    padding: Padding = 0, dilation: Ints = 1, ceil_mode: bool = False,
    count_include_pad: bool = False, data_format: DataFormat = "channels_last",
    out: Array | None = None,
) -> Array:  # fmt: skip
    """Each window's error spread evenly: every cell inside x gets dy divided by the count.

    dy (m, OH, OW, C) -> dx (m, H, W, C). Each share is divided first, then added, in the scan
    order of the windows.

    >>> avg_pool_backward(np.array([[[1.0], [4.0]]]), (1, 4, 1), 2)[0, :, 0]
    array([0.5, 0.5, 2. , 2. ])
    """
    (dy,), store = _load(data_format, dy=dy)
    shape = _shape("x_shape", x_shape, data_format, dy.ndim)
    grid = _grid(shape, window, stride, padding, dilation, ceil_mode, pool=True)
    _expect("dy", dy, (shape[0], *grid.pixels, shape[-1]))
    divisors = {i: grid.divisor(i, count_include_pad) for i in np.ndindex(grid.pixels)}
    dx: Cells = np.zeros(shape, dy.dtype)
    for i, _, h in grid.steps():
        for n in range(len(dx)):
            dx[n, *h] += dy[n, *i] / divisors[i]
    return store(dx, out)


# ---- the convolution as a matrix product ------------------------------------------------------


@quiet
def im2col(
    x: Array, window: Ints, *, stride: Ints = 1, padding: Padding = 0, dilation: Ints = 1,
    data_format: DataFormat = "channels_last",
) -> Array:  # fmt: skip
    """What each window sees, as a row: x (m, H, W, C) -> cols (m, OH, OW, KH*KW*C).

    Taps are in row-major order, channels innermost, in both data formats; zero where the window
    lies over the padding. ``conv(x, w)`` is then ``cols @ w`` with w as a (KH*KW*C, F) matrix.

    >>> im2col(np.array([[[1.0], [2.0], [3.0]]]), 2)[0]
    array([[1., 2.],
           [2., 3.]])
    """
    (x,), store = _load(data_format, x=x)
    grid = _grid(x.shape, window, stride, padding, dilation)
    m, C, T = len(x), x.shape[-1], int(np.prod(grid.window))
    cols: Cells = np.zeros((m, *grid.pixels, *grid.window, C), x.dtype)
    for i, u, h in grid.steps():
        for n in range(m):
            cols[n, *i, *u] = x[n, *h]
    return store(cols.reshape(m, *grid.pixels, T * C), None, image=False)


@quiet
def col2im(
    cols: Array, x_shape: Sizes, window: Ints, *, stride: Ints = 1, padding: Padding = 0,
    dilation: Ints = 1, data_format: DataFormat = "channels_last",
) -> Array:  # fmt: skip
    """Adjoint of `im2col`: every row goes back where it came from, and overlapping taps add up.

    cols (m, OH, OW, KH*KW*C) -> x (m, H, W, C)

    >>> col2im(np.array([[[1.0, 2.0], [2.0, 3.0]]]), (1, 3, 1), 2)[0, :, 0]
    array([1., 4., 3.])
    """
    (cols,), store = _load(data_format, cols=cols)
    shape = _shape("x_shape", x_shape, data_format, cols.ndim)
    grid = _grid(shape, window, stride, padding, dilation)
    m, C, T = shape[0], shape[-1], int(np.prod(grid.window))
    _expect("cols", cols, (m, *grid.pixels, T * C))
    cols = cols.reshape(m, *grid.pixels, *grid.window, C)
    x: Cells = np.zeros(shape, cols.dtype)
    for i, u, h in grid.steps():
        for n in range(m):
            x[n, *h] += cols[n, *i, *u]
    return store(x, None)
