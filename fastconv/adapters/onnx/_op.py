"""What the operators share: their base class, and their attributes in fastconv's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fastconv.adapters._host import host
from fastconv.geometry import effective
from fastconv.operands import quiet

__all__ = ["DATA_FORMAT", "Op", "Window", "kernel_view"]

onnx = host("onnx", "onnx")
_OpRun: Any = host("onnx.reference.op_run", "onnx").OpRun

DATA_FORMAT = "channels_first"  # NCHW
AUTO_PADS = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


class Op(_OpRun):
    """An operator of ONNX's main domain, for every opset: the evaluator asks for it by its name."""

    op_domain = ""

    @quiet
    def run(self, *args: Any, **options: Any) -> Any:
        """Run the operator; like the functions, it neither warns nor raises for what overflows."""
        return super().run(*args, **options)

    @property
    def opset(self) -> int:
        """Version of the main operator set that the model asks for."""
        opsets: dict[str, int] = self.run_params["opsets"]
        return opsets[self.op_domain]

    def given(self, attribute: str) -> bool:
        """Whether the model sets the attribute; otherwise it has the newest version's default."""
        return any(a.name == attribute for a in self.onnx_node.attribute)


class Window(NamedTuple):
    """Extents, strides, dilations and (lo, hi) paddings of a window, one per spatial axis."""

    k: tuple[int, ...]
    s: tuple[int, ...]
    d: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    ceil: bool = False

    @classmethod
    def of(
        cls,
        x: np.ndarray,
        kernel_shape: Sequence[int],
        *,
        strides: Sequence[int] | None = None,
        dilations: Sequence[int] | None = None,
        pads: Sequence[int] | None = None,
        auto_pad: str | None = None,
        ceil_mode: int | None = None,
    ) -> Window:
        """The window that an operator's attributes describe for the input `x` (m, C, H, W).

        Raises
        ------
        ValueError
            If the number of spatial axes is not 1 to 3 or not that of an attribute, or `auto_pad`
            is unknown.
        """
        rank = x.ndim - 2
        k = tuple(kernel_shape)
        s = tuple(strides or (1,) * rank)
        d = tuple(dilations or (1,) * rank)
        flat = tuple(pads or (0,) * 2 * rank)
        if not 1 <= rank <= 3:
            raise ValueError(
                f"an input of shape {x.shape} has {rank} spatial axes, and fastconv has 1 to 3; "
                "without this operator in new_ops, ONNX's own runs"
            )
        given = {"kernel_shape": k, "strides": s, "dilations": d, "pads": flat}
        for name, value in given.items():
            length = 2 * rank if name == "pads" else rank
            if len(value) != length:
                raise ValueError(
                    f"{name}: {list(value)} must have {length} entries for {rank} axes"
                )
        pairs = tuple(zip(flat[:rank], flat[rank:], strict=True))
        mode = auto_pad or "NOTSET"
        # auto_pad decides the size alone. With VALID the text has ceil((n - reach + 1) / stride),
        # which is the number of whole windows: ceil_mode adds none. (ONNX Runtime adds one.)
        ceil = bool(ceil_mode) and mode == "NOTSET"
        return cls(k, s, d, _auto(mode, x.shape[2:], k, s, d, pairs), ceil)

    @property
    def reach(self) -> tuple[int, ...]:
        """Extent of the window, gaps and all, on every axis."""
        return tuple(effective(k, d) for k, d in zip(self.k, self.d, strict=True))


def _auto(  # type: ignore[no-untyped-def]
    auto_pad, size, k, s, d, pairs
) -> tuple[tuple[int, int], ...]:
    if auto_pad not in AUTO_PADS:
        raise ValueError(f"auto_pad: {auto_pad!r} must be one of {', '.join(AUTO_PADS)}")
    if auto_pad == "NOTSET":
        return tuple(pairs)
    if auto_pad == "VALID":
        return ((0, 0),) * len(k)
    found = []
    for n, extent, step, gap in zip(size, k, s, d, strict=True):
        total = max(0, (-(-n // step) - 1) * step + effective(extent, gap) - n)
        found.append(split(total, auto_pad))
    return tuple(found)


def split(total: int, auto_pad: str) -> tuple[int, int]:
    """Both ends' shares of a padding: an odd cell goes to the high end, or to the low one.

    >>> split(3, "SAME_UPPER"), split(3, "SAME_LOWER")
    ((1, 2), (2, 1))
    """
    half = total // 2
    return (half, total - half) if auto_pad == "SAME_UPPER" else (total - half, half)


def kernel_view(w: np.ndarray) -> np.ndarray:
    """`w` (F, C/G, KH, KW) seen as (KH, KW, C/G, F).

    >>> kernel_view(np.zeros((8, 3, 5, 4))).shape
    (5, 4, 3, 8)
    """
    return w.transpose(*range(2, w.ndim), 1, 0)
