"""Layers that hold layers: a chain, and a chain with a shortcut around it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastconv.nn.base import Array, Layer, check_array, positive_int
from fastconv.program import naive_elementwise
from fastconv.program.ops import elementwise


class Sequential(Layer):
    """A chain of layers.

    Parameters
    ----------
    *layers : Layer
        In the order of the forward pass.
    name : str, optional
        What `summary` calls the model.
    ops : module, optional
        `fastconv` (default) or `fastconv.reference`; setting ``model.ops`` reaches every layer.

    Attributes
    ----------
    layers : tuple of Layer

    Raises
    ------
    TypeError, ValueError
        If there is no layer, an argument is no layer, or one layer appears twice.

    Examples
    --------
    >>> from fastconv.nn import Dense, Flatten
    >>> model = Sequential(Flatten(), Dense(12, 3, rng=0))
    >>> model.forward(np.zeros((2, 2, 2, 3), np.float32)).shape
    (2, 3)
    """

    def __init__(self, *layers: Layer, name: str | None = None, ops: Any = None) -> None:
        super().__init__()
        if not layers:
            raise ValueError("layers: at least one layer is needed")
        for layer in layers:
            if not isinstance(layer, Layer):
                raise TypeError(f"layers: expected fastconv.nn layers, got {layer!r}")
        self.layers = layers
        self.name = name
        _refuse_repeats(self)
        if ops is not None:
            self.ops = ops
        for path, parameter in self.named_parameters().items():
            parameter.name = path

    def children(self) -> dict[str, Layer]:
        """The layers, by their index."""
        return {str(i): layer for i, layer in enumerate(self.layers)}

    def config(self) -> dict[str, Any]:
        """The layers' types and arguments."""
        layers = [{"type": type(layer).__name__, **layer.config()} for layer in self.layers]
        return {"name": self.name, "layers": layers}

    # The two passes -----------------------------------------------------------------------------

    def forward(self, x: Array) -> Array:
        """Run `x` through all layers."""
        for i in range(len(self.layers)):
            x = self._step(i, x)
        return x

    def _step(self, i: int, x: Array) -> Array:
        layer = self.layers[i]
        try:
            y = layer.forward(x)
        except (ValueError, TypeError) as error:
            error.add_note(f"in layer {i}, {layer!r}, with x of shape {np.shape(x)}")
            raise
        layer.output_shape = y.shape[1:]
        return y

    def activations(self, x: Array) -> list[Array]:
        """Every layer's output for the input `x`; the last one is `forward(x)`."""
        outputs = []
        for i in range(len(self.layers)):
            x = self._step(i, x)
            outputs.append(x)
        return outputs

    def backward(self, dy: Array) -> Array:
        """Return `dx` of the first layer; write all parameters' gradients."""
        for layer in reversed(self.layers):
            dy = layer.backward(dy)
        return dy

    def backward_parameters(self, dy: Array) -> None:
        """Write all parameters' gradients; the first layer's `dx` is left out."""
        for layer in reversed(self.layers[1:]):
            dy = layer.backward(dy)
        self.layers[0].backward_parameters(dy)

    def deltas(self, dy: Array) -> list[Array]:
        """Gradients of the loss with respect to every layer's input, in the layers' order.

        ``deltas(dy)[i]`` belongs to the input of ``layers[i]``, that is to
        ``activations(x)[i - 1]``; entry 0 is what `backward` returns.
        """
        found = []
        for layer in reversed(self.layers):
            dy = layer.backward(dy)
            found.append(dy)
        return found[::-1]

    def predict(self, x: Array, batch_size: int = 256) -> Array:
        """Outputs for `x` (m, ...) in evaluation mode, `batch_size` images at a time.

        Layers return to the mode they were in. What `backward` needs is that of the last batch.
        """
        batch_size = positive_int("batch_size", batch_size)
        check_array("x", x, self)
        with evaluating(self), np.errstate(over="ignore", invalid="ignore"):
            starts = range(0, max(len(x), 1), batch_size)  # one empty batch where m = 0
            return np.concatenate([self.forward(x[i : i + batch_size]) for i in starts])

    # Files and text -----------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write architecture, parameters and running statistics to one .npz file (no pickle).

        The file is complete or absent: it is written beside `path` and then renamed.
        """
        from fastconv.nn.storage import save_model

        save_model(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, ops: Any = None) -> Sequential:
        """Rebuild a saved model, architecture and all.

        Raises
        ------
        FileNotFoundError, ValueError
            If there is no such file, or it is not a whole file written by `save`.
        """
        from fastconv.nn.storage import load_model

        model = load_model(path)
        if ops is not None:
            model.ops = ops
        return model

    def to_onnx(
        self,
        path: str | os.PathLike[str],
        *,
        input_shape: tuple[int, ...] | None = None,
        output: str = "logits",
        dtype: Any = None,
    ) -> None:
        """Write the network, in evaluation mode, as an ONNX file.

        Its input ``x`` is (m, H, W, C), its output ``y`` is what `predict` gives, for any m.

        Parameters
        ----------
        path : path
            Complete or absent afterwards, as with `save`.
        input_shape : tuple of int, optional
            Shape of one image. Without it H and W are free, as far as the layers leave them so;
            a network that begins without a convolution needs it.
        output : {"logits", "softmax", "sigmoid"}
            What ``y`` is: the last layer's output as it is, from which the losses compute, or
            the probabilities that `SoftmaxCrossEntropy` or `BinaryCrossEntropy` make of it.
        dtype : dtype, optional
            The network's by default. ONNX Runtime has no float64 convolution on a CPU.

        Raises
        ------
        ImportError
            If onnx is not installed: ``pip install "fastconv[onnx]"``.
        TypeError, ValueError
            If a layer has no form in ONNX, or none that is the same, or an argument is wrong.
        """
        from fastconv.adapters.onnx.export import write

        write(self, path, input_shape=input_shape, output=output, dtype=dtype)

    def summary(self, input_shape: tuple[int, ...] | None = None) -> str:
        """A table: layer, shape of one image's output, number of parameters.

        Parameters
        ----------
        input_shape : tuple of int, optional
            Shape of one image, to find the output shapes with an empty batch; otherwise those of
            the last forward pass are shown, or "?".
        """
        if input_shape is not None:
            dtype = next((p.dtype for p in self.parameters()), np.dtype(np.float32))
            with evaluating(self):
                self.forward(np.zeros((0, *input_shape), dtype))
        rows = [("layer", "output", "parameters")]
        for i, layer in enumerate(self.layers):
            shape = "?" if layer.output_shape is None else str(layer.output_shape)
            count = sum(parameter.size for parameter in layer.parameters())
            rows.append((f"{i} {type(layer).__name__}", shape, str(count)))
        total = sum(parameter.size for parameter in self.parameters())
        rows.append((self.name or "total", "", str(total)))
        wide = [max(len(row[k]) for row in rows) for k in range(3)]
        lines = [f"{a:<{wide[0]}}  {b:<{wide[1]}}  {c:>{wide[2]}}" for a, b, c in rows]
        rule = "-" * len(lines[0])
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


class Residual(Layer):
    """y = body(x) + shortcut(x): He et al. 2016.

    Parameters
    ----------
    body : Layer
        Usually a `Sequential`.
    shortcut : Layer, optional
        What brings `x` to the shape of the body's output; None passes `x` on as it is.

    Examples
    --------
    >>> from fastconv.nn import Conv
    >>> block = Residual(Conv(4, 4, 3, padding=1, rng=0))
    >>> block.forward(np.zeros((2, 5, 5, 4), np.float32)).shape
    (2, 5, 5, 4)
    """

    def __init__(self, body: Layer, shortcut: Layer | None = None) -> None:
        super().__init__()
        for name, layer in (("body", body), ("shortcut", shortcut)):
            if not isinstance(layer, Layer) and not (layer is None and name == "shortcut"):
                raise TypeError(f"{name}: a fastconv.nn layer is needed, got {layer!r}")
        self.body = body
        self.shortcut = shortcut
        _refuse_repeats(self)
        self._cache: tuple[tuple[int, ...], Any] | None = None
        for path, parameter in self.named_parameters().items():
            parameter.name = path

    def children(self) -> dict[str, Layer]:
        """Body and shortcut."""
        return {"body": self.body} | ({"shortcut": self.shortcut} if self.shortcut else {})

    def config(self) -> dict[str, Any]:
        """Type and arguments of the layers inside."""
        parts = {"body": self.body, "shortcut": self.shortcut}
        return {
            name: None if layer is None else {"type": type(layer).__name__, **layer.config()}
            for name, layer in parts.items()
        }

    def forward(self, x: Array) -> Array:
        """Add the body's output and the shortcut's."""
        check_array("x", x, self)
        y = self.body.forward(x)
        side = x if self.shortcut is None else self.shortcut.forward(x)
        if y.shape != side.shape:
            raise ValueError(
                f"body: its output {y.shape} and the shortcut's {side.shape} must have one shape"
            )
        self._cache = (y.shape, y.dtype)
        return self._sum(y, side)

    def backward(self, dy: Array) -> Array:
        """Return `dx`: the sum of what comes back through body and shortcut."""
        self._check_dy(dy, *self._saved(self._cache))
        side = dy if self.shortcut is None else self.shortcut.backward(dy)
        return self._sum(self.body.backward(dy), side)

    def _sum(self, a: Array, b: Array) -> Array:
        if a.dtype != b.dtype:  # layers of one's own may change the dtype: NumPy's rules
            return a + b
        total: Array = self._pick(elementwise, naive_elementwise).add(a, b)
        return total


@contextmanager
def evaluating(model: Layer) -> Iterator[None]:
    """Evaluation mode inside a `with` block; every layer returns to the mode it was in."""
    modes = [(layer, layer.training) for _, layer in model.walk()]
    model.eval()
    try:
        yield
    finally:
        for layer, mode in modes:
            layer.training = mode


def _refuse_repeats(container: Layer) -> None:
    # A layer keeps what backward needs of its last forward pass: it can stand in one place only.
    seen: dict[int, str] = {}
    for path, layer in container.walk():
        if id(layer) in seen:
            raise ValueError(f"layers: {layer!r} stands at {seen[id(layer)]} and at {path}")
        seen[id(layer)] = path
