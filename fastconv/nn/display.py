"""How a network looks in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastconv import _html

if TYPE_CHECKING:
    from fastconv.nn.base import Layer

__all__ = ["network_html"]


def network_html(layers: tuple[Layer, ...], title: str) -> str:
    """A table of a network's layers: what each is, its last output, how many parameters it has.

    Examples
    --------
    >>> from fastconv.nn import Flatten
    >>> "Flatten()" in network_html((Flatten(),), "mine")
    True
    """
    rows = []
    for i, layer in enumerate(layers):
        shape = "?" if layer.output_shape is None else "x".join(map(str, layer.output_shape))
        count = sum(parameter.size for parameter in layer.parameters())
        rows.append((i, repr(layer), shape, f"{count:,}" if count else ""))
    return _html.table(title, ("", "layer", "output", "parameters"), rows)
