"""What to write instead, for errors whose cause can be seen in the shapes.

Each function returns a phrase to end a message with, or "" where it has no guess. Nothing here
decides whether a call is legal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = [
    "array_cure",
    "axes_cure",
    "channels_cure",
    "dtype_cure",
    "foreign_array",
    "format_cure",
    "kernel_order_cure",
    "name_cure",
    "pool_axes_cure",
    "transposed_order_cure",
]

Shape = Sequence[int]
PLAIN = frozenset((int, float, bool, str, np.ndarray))  # no list of these is looked into
COLOURS = (1, 3, 4)  # channels of an image file
FIRST = "channels_first"
FORMATS = {
    "channels_last": ("NHWC", "NWC", "NDHWC", "NLC", "BHWC"),
    "channels_first": ("NCHW", "NCW", "NCDHW", "NCL", "BCHW"),
}


def name_cure(value: str, names: Sequence[str]) -> str:
    """The legal name that differs in its case alone.

    >>> name_cure("SAME", ("valid", "same"))
    "did you mean 'same'?"
    """
    return f"did you mean {value.lower()!r}?" if value.lower() in names else ""


def format_cure(value: str) -> str:
    """The data format that another library calls `value`.

    >>> format_cure("NCHW")
    "NCHW is 'channels_first'"
    """
    for name, others in FORMATS.items():
        if value.upper() in (name.upper(), *others):
            return f"{value} is {name!r}"
    return ""


def dtype_cure(name: str, dtype: np.dtype, is_array: bool) -> str:
    """How integers, booleans and bfloat16 become numbers to compute with."""
    if dtype.kind not in "iub" and dtype.name != "bfloat16":
        return ""
    return f"{name}.astype(np.float32)" if is_array else f"np.array({name}, np.float32)"


def array_cure(name: str, value: object) -> str:
    """What makes an array of an object that NumPy would read silently, and whole, or not at all."""
    if getattr(value, "requires_grad", False) is True:
        return f"{name} is a tensor that requires a gradient: pass {name}.detach().numpy()"
    found = foreign_array(name, value)
    if found is None:
        return ""
    name, _, package = found
    cure = f"compute it first, {name}.compute()"
    if package == "xarray":
        cure = f"pass its array, {name}.values"
    return f"{name} is of {package}: the adapter fastconv.adapters.{package} takes it; or {cure}"


def foreign_array(name: str, value: object, depth: int = 32) -> tuple[str, str, str] | None:
    """What NumPy would compute, or rob of its labels, in silence: argument, class and package.

    It may be an item of lists and tuples, or of a class derived from the package's.

    >>> foreign_array("x", [[1.0], np.zeros(1)])
    """
    if isinstance(value, list | tuple):  # a subclass's own __iter__ may be meant for one pass
        base = list if isinstance(value, list) else tuple
        items = [*base.__iter__(value)]  # type: ignore[arg-type]
        if not depth or PLAIN.issuperset(map(type, items)):
            return None
        found = (foreign_array(f"{name}[{i}]", v, depth - 1) for i, v in enumerate(items))
        return next(filter(None, found), None)
    for kind in type(value).__mro__:
        package = kind.__module__.partition(".")[0].removesuffix("_expr")
        if package in ("dask", "xarray"):
            return name, kind.__name__, package
    return None


def axes_cure(names: tuple[str, str], x: Shape, w: Shape, C: int, data_format: str) -> str:
    """New axes that make a batch of `x` and a kernel of `w`, which takes `C` channels if whole.

    >>> axes_cure(("x", "w"), (8, 8), (3, 3), 1, "channels_last")
    'try x[None, :, :, None], w[:, :, None, None]'
    """
    rank = _rank(len(x), len(w))
    if not rank:
        return ""
    found = _image(names[0], x, rank, C if len(w) == rank + 2 else 1, data_format)
    if len(w) == rank:
        found += [_indexed(names[1], w, ":" * rank + "++")]
    elif len(w) == rank + 1:
        one_filter = len(x) == rank + 2 and w[-1] == x[1 if data_format == FIRST else -1]
        found += [_indexed(names[1], w, ":" * rank + (":+" if one_filter else "+:"))]
    return "try " + ", ".join(found)


def pool_axes_cure(name: str, x: Shape, window: object, data_format: str) -> str:
    """New axes that make a batch of `x`, for a window.

    >>> pool_axes_cure("x", (28, 28, 3), (2, 2), "channels_last")
    'try x[None]'
    """
    rank = len(window) if isinstance(window, tuple | list) else len(x)
    if not 1 <= rank <= 3:
        return ""
    channels = [n for n in (x[:1] if data_format == FIRST else x[-1:]) if n in COLOURS]
    found = _image(name, x, rank, channels[0] if channels else 1, data_format)
    return f"try {found[0]}" if found else ""


def kernel_order_cure(name: str, w: Shape, C: int, groups: int) -> str:
    """The order of a kernel that has PyTorch's, ``(F, C/G, KH, KW)``.

    >>> kernel_order_cure("w", (8, 3, 5, 5), 3, 1)
    "a kernel in PyTorch's order is w.transpose(2, 3, 1, 0)"
    """
    if w[1] * groups != C:
        return ""
    return f"a kernel in PyTorch's order is {_turned(name, w)}"


def transposed_order_cure(name: str, w: Shape, C: int) -> str:
    """The order of a transposed convolution's kernel that is PyTorch's, or a convolution's.

    >>> transposed_order_cure("w", (8, 3, 5, 5), 8), transposed_order_cure("w", (5, 5, 8, 3), 8)
    ("a kernel in PyTorch's order is w.transpose(2, 3, 1, 0)", "conv's order is w.swapaxes(-1, -2)")
    """
    if w[0] == C:
        return f"a kernel in PyTorch's order is {_turned(name, w)}"
    if w[-2] != C:
        return ""
    turned = "w.swapaxes(-1, -2)" if name == "w" else f"{name}={(*w[:-2], w[-1], w[-2])}"
    return f"conv's order is {turned}"


def channels_cure(
    names: tuple[str, str], x: Shape, w: Shape, groups: int, data_format: str
) -> str:  # fmt: skip
    """Where the channels of a kernel ``(KH, KW, C/G, F)`` are not those of the images."""
    first = data_format == FIRST
    C, other = (x[1], x[-1]) if first else (x[-1], x[1])
    turned = kernel_order_cure(names[1], w, C, groups)
    one_channel = w[-2] == groups == 1
    if turned and not (one_channel and w[0] == w[1]):  # a square window of one channel
        return turned
    elsewhere = f'data_format="{"channels_last" if first else "channels_first"}"'
    if w[-2] * groups == other:
        return f"images of {other} channels in that order are {elsewhere}"
    if w[1] * groups == other:
        return f"PyTorch's order is {elsewhere} and {_turned(names[1], w)}"
    if one_channel:
        if w[-1] % C == 0:
            return f"filters of one channel each are groups={C}"
        shape = (*w[:-1], w[-1] * C)
        repeated = "" if names[1] != "w" else f", np.repeat(w, {C}, axis=-1)"
        return f"the same filters on every channel are groups={C} and a kernel {shape}{repeated}"
    if len(x) == len(w) == 3:
        volume = ", ".join((_indexed(names[0], x, "+:::+"), _indexed(names[1], w, ":::++")))
        return f"three axes are (m, W, C) and (KW, C/G, F); a volume is {volume}"
    return ""


def _turned(name: str, w: Shape) -> str:
    axes = (*range(2, len(w)), 1, 0)
    return f"w.transpose{axes}" if name == "w" else f"{name}={tuple(w[a] for a in axes)}"


def _rank(n: int, k: int) -> int:
    """Spatial axes of an x of `n` axes and a w of `k` in which some are missing; 0: no guess."""
    if (n, k) == (3, 2):  # an image of several channels and a bare window
        return 2
    ranks = [r for r in (3, 2, 1) if r <= min(n, k) and max(n, k) <= r + 2 and n + k < 2 * r + 4]
    return max(ranks, key=lambda r: r + 2 in (n, k), default=0)


def _image(name: str, x: Shape, rank: int, C: int, data_format: str) -> list[str]:
    """`x` with a batch, channels, or both; nothing where neither is missing."""
    first = data_format == FIRST
    if len(x) == rank:
        return [_indexed(name, x, "++" + ":" * rank if first else "+" + ":" * rank + "+")]
    if len(x) != rank + 1:
        return []
    if (x[0] if first else x[-1]) == C or C != 1:
        return [_indexed(name, x, "+" + ":" * (rank + 1))]
    return [_indexed(name, x, ":+" + ":" * rank if first else ":" * (rank + 1) + "+")]


def _indexed(name: str, shape: Shape, axes: str) -> str:
    """An index that adds an axis for each "+"; of an argument that is a shape, the longer shape.

    >>> _indexed("x", (8, 8), "+::+"), _indexed("x", (8, 8), "+::"), _indexed("x", (8, 8), "::+")
    ('x[None, :, :, None]', 'x[None]', 'x[..., None]')
    """
    if name.endswith("_shape"):
        sizes = iter(shape)
        return f"{name}={tuple(1 if axis == '+' else next(sizes) for axis in axes)}"
    if "+" not in axes[:-1]:
        return f"{name}[..., None]"
    index = ", ".join("None" if axis == "+" else ":" for axis in axes.rstrip(":"))
    return f"{name}[{index}]"
