"""The layers below a container."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastconv.nn.base import Layer

__all__ = ["evaluating", "refuse_repeats"]


@contextmanager
def evaluating(model: Layer) -> Iterator[None]:
    """Evaluation mode inside a `with` block; every layer returns to the mode it was in.

    Parameters
    ----------
    model : Layer

    Examples
    --------
    >>> from fastconv.nn import Dropout
    >>> layer = Dropout(0.5)
    >>> with evaluating(layer):
    ...     layer.training
    False
    >>> layer.training
    True
    """
    modes = [(layer, layer.training) for _, layer in model.walk()]
    model.eval()
    try:
        yield
    finally:
        for layer, mode in modes:
            layer.training = mode


def refuse_repeats(container: Layer) -> None:
    """Raise ValueError if one layer stands at two places below a container."""
    # A layer keeps what backward needs of its last forward pass: it can stand in one place only.
    seen: dict[int, str] = {}
    for path, layer in container.walk():
        if id(layer) in seen:
            name = type(layer).__name__
            raise ValueError(f"layers: one {name} stands at {seen[id(layer)]} and at {path}")
        seen[id(layer)] = path
