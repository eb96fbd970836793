"""The size formulas: how many windows fit an axis, and what padding by name comes to."""

from __future__ import annotations

from collections.abc import Sequence

from fastconv.geometry.request import Pairs

__all__ = ["effective", "output_size", "resolved_pads", "transposed_pad"]


def effective(k: int, d: int) -> int:
    """Extent of a window of `k` taps that lie `d` apart."""
    return (k - 1) * d + 1


def output_size(n: int, k: int, s: int, d: int, lo: int, hi: int, ceil_mode: bool = False) -> int:
    """How many windows fit one axis.

    Floor of ``(n + lo + hi - effective) / s``, plus one. With `ceil_mode` the quotient is rounded
    up, so that the last window, which may be the first, reaches beyond the padded input; one that
    would start in the high padding is dropped (PyTorch's rule). 0 where no window is left.

    >>> output_size(7, 2, 2, 1, 0, 0), output_size(7, 2, 2, 1, 0, 0, ceil_mode=True)
    (3, 4)
    >>> output_size(2, 3, 2, 1, 0, 0), output_size(2, 3, 2, 1, 0, 0, ceil_mode=True)
    (0, 1)
    """
    spare = n + lo + hi - effective(k, d)
    if not ceil_mode:
        return max(0, spare // s + 1)
    size = max(0, -(-spare // s) + 1)
    return size - 1 if (size - 1) * s >= n + lo else size


def resolved_pads(
    padding: str | Pairs,
    x_size: Sequence[int],
    window: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> Pairs:
    """One (lo, hi) pair per axis; "same" is TensorFlow's rule, at any stride."""
    if padding == "same":
        totals = (
            max((-(-n // s) - 1) * s + effective(k, d) - n, 0)
            for n, k, s, d in zip(x_size, window, stride, dilation, strict=True)
        )
        return tuple((total // 2, total - total // 2) for total in totals)
    if padding == "full":
        reach = (effective(k, d) - 1 for k, d in zip(window, dilation, strict=True))
        return tuple((p, p) for p in reach)
    return ((0, 0),) * len(x_size) if isinstance(padding, str) else padding


def transposed_pad(pad: str | tuple[int, int], k: int, s: int, d: int) -> tuple[int, int]:
    """What is cut from each end of one axis of the full result; "same" leaves N*s."""
    eff = effective(k, d)
    if pad == "same":
        lo = max(eff - s, 0) // 2
        return lo, eff - s - lo
    if pad == "full":
        return eff - 1, eff - 1
    return (0, 0) if isinstance(pad, str) else pad
