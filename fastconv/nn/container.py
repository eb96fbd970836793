"""Layers that hold layers: a chain, and a chain with a shortcut around it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Literal

import numpy as np

from fastconv.nn.base import Layer, runner, scratch_copy
from fastconv.nn.checks import (
    Array,
    check_array,
    layer_error,
    locate,
    positive_int,
    quiet,
    shown,
)
from fastconv.nn.inference import InferencePlan, forward_of, plan_inference
from fastconv.nn.lowering import Backward, Lowered, is_relu, lowered, takes_relu, wants_gradient
from fastconv.nn.onnx import layers as onnx
from fastconv.nn.registry import built, described, register
from fastconv.nn.storage import load_model, save_model
from fastconv.program.graph import Graph, Value
from fastconv.program.layers import each
from fastconv.program.naive import elementwise as naive_elementwise
from fastconv.program.ops import elementwise
from fastconv.typing import Algorithm, DTypeLike


@register(onnx=onnx.sequential)
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

    def __init__(
        self, *layers: Layer, name: str | None = None, ops: ModuleType | None = None
    ) -> None:
        super().__init__()
        if not layers:
            raise ValueError("layers: at least one layer is needed")
        for layer in layers:
            if not isinstance(layer, Layer):
                raise TypeError(f"layers: expected fastconv.nn layers, got {shown(layer)}")
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
        return {"name": self.name, "layers": [described(layer) for layer in self.layers]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Layer:
        """Rebuild the layers, with zero weights."""
        arguments = dict(config)
        layers = arguments.pop("layers", ())  # a class of one's own may have other arguments
        return cls(*map(built, layers), **arguments)

    # The two passes -----------------------------------------------------------------------------

    def lower(self, graph: Graph, x: Value) -> Lowered:
        """Both passes, as operations: those of all layers."""
        steps: list[tuple[tuple[str, str, Layer], Backward]] = []
        graph.setting(self, "layers")
        i = 0
        while i < len(self.layers):
            layer, options, name = self.layers[i], {}, str(i)
            place = (f"{i} {type(layer).__name__}", name, layer)
            if i + 1 < len(self.layers) and takes_relu(layer, graph):
                options = {"relu": True} if is_relu(self.layers[i + 1], graph) else {}
            try:
                with graph.inside(*place):
                    x, back = lowered(layer, graph, x, **options)
            except Exception as error:
                locate(error, name, layer)
                raise
            steps.append((place, back))
            for passed in self.layers[i : i + 1 + len(options)]:
                if not graph.inference:
                    passed.output_shape = x.shape[1:]
            i += 1 + len(options)

        parts = [layer for (_, _, layer), _ in steps]

        def backward(dy: Value, need: bool) -> Value | None:
            for k, (place, back) in reversed(list(enumerate(steps))):
                wanted = k > 0 and wants_gradient(parts[:k], parts[k], graph)
                with graph.inside(*place):
                    dx = back(dy, need or wanted)
                if dx is None:
                    return None
                dy = dx
            return dy

        return x, backward

    @quiet
    def forward(self, x: Array) -> Array:
        """Run `x` through all layers."""
        for i in range(len(self.layers)):
            x = self._step(i, x)
        return x

    def _step(self, i: int, x: Array) -> Array:
        layer = self.layers[i]
        try:
            y: Any = layer.forward(x)
        except Exception as error:
            locate(error, str(i), layer)
            raise
        if not isinstance(y, np.ndarray):
            wrong = layer_error(TypeError, layer, f"forward gave {shown(y)}, which is no array")
            locate(wrong, str(i), layer)
            raise wrong
        layer.output_shape = y.shape[1:]
        return y

    def _step_back(self, i: int, dy: Array) -> Array:
        try:
            return self.layers[i].backward(dy)
        except Exception as error:
            locate(error, str(i), self.layers[i])
            raise

    @quiet
    def activations(self, x: Array) -> list[Array]:
        """Every layer's output for the input `x`; the last one is `forward(x)`."""
        outputs = []
        for i in range(len(self.layers)):
            x = self._step(i, x)
            outputs.append(x)
        return outputs

    @quiet
    def backward(self, dy: Array) -> Array:
        """Return `dx` of the first layer; write all parameters' gradients."""
        for i in reversed(range(len(self.layers))):
            dy = self._step_back(i, dy)
        return dy

    @quiet
    def backward_parameters(self, dy: Array) -> None:
        """Write all parameters' gradients; the first layer's `dx` is left out."""
        for i in reversed(range(1, len(self.layers))):
            dy = self._step_back(i, dy)
        try:
            self.layers[0].backward_parameters(dy)
        except Exception as error:
            locate(error, "0", self.layers[0])
            raise

    @quiet
    def deltas(self, dy: Array) -> list[Array]:
        """Gradients of the loss with respect to every layer's input, in the layers' order.

        ``deltas(dy)[i]`` belongs to the input of ``layers[i]``, that is to
        ``activations(x)[i - 1]``; entry 0 is what `backward` returns.
        """
        found = []
        for i in reversed(range(len(self.layers))):
            dy = self._step_back(i, dy)
            found.append(dy)
        return found[::-1]

    def predict(self, x: Array, batch_size: int = 256) -> Array:
        """Outputs for `x` (m, ...) in evaluation mode, `batch_size` images at a time.

        Nothing of the model changes (see `Layer.infer`): several threads may predict at once, and
        `backward` still belongs to the last `forward`.

        Raises
        ------
        ValueError, TypeError
            Naming the argument, and the layer where the images do not fit.
        """
        return predict(self, x, batch_size)

    def plan_inference(
        self, x_shape: Sequence[int], *, algorithm: Algorithm | None = None
    ) -> InferencePlan:
        """Prepare `predict` for batches of one shape, with the weights as they are now.

        The numbers are those of `predict`, bit for bit; what saves time is that kernels are brought
        into the engine's order once, and that the interpreter is entered once a call.

        Parameters
        ----------
        x_shape : sequence of int
            ``(m, H, W, C)``, of the largest batch.
        algorithm : {"exact", "fast"}, optional
            Of its convolutions, unless a layer has one of its own; by default that of the
            ``with fastconv.algorithm(...)`` around this call.

        Returns
        -------
        InferencePlan
            ``y = run(x, out=None)``, from several threads at once; ``run.refresh()`` takes new
            weights.

        Raises
        ------
        ValueError, TypeError
            Naming the argument, and the layer where the images do not fit.

        Examples
        --------
        >>> from fastconv.examples import binary_cnn
        >>> run = binary_cnn().plan_inference((1, 8, 8, 1))
        >>> run(np.ones((1, 8, 8, 1), np.float32)).shape
        (1, 1)
        """
        return plan_inference(self, x_shape, algorithm=algorithm)

    # Files and text -----------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write architecture, parameters and running statistics to one .npz file (no pickle).

        The file is complete or absent: it is written beside `path` and then renamed.
        """
        save_model(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, ops: ModuleType | None = None) -> Sequential:
        """Rebuild a saved model, architecture and all.

        Raises
        ------
        FileNotFoundError, ValueError
            If there is no such file, or it is not a whole file written by `save`.
        """
        model: Sequential = load_model(path, Sequential)
        if ops is not None:
            model.ops = ops
        return model

    def to_onnx(
        self,
        path: str | os.PathLike[str],
        *,
        input_shape: tuple[int, ...] | None = None,
        output: Literal["logits", "softmax", "sigmoid"] = "logits",
        dtype: DTypeLike | None = None,
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
        from fastconv.nn.onnx.writer import write

        write(self, path, input_shape=input_shape, output=output, dtype=dtype)

    def summary(self, input_shape: tuple[int, ...] | None = None) -> str:
        """A table: layer, shape of one image's output, number of parameters.

        Parameters
        ----------
        input_shape : tuple of int, optional
            Shape of one image, to find the output shapes with an empty batch; otherwise those of
            the last forward pass are shown, or "?".
        """
        layers = self.layers
        if input_shape is not None:
            dtype = next((p.dtype for p in self.parameters()), np.dtype(np.float32))
            twin = scratch_copy(self, evaluating=True)
            twin.forward(np.zeros((0, *input_shape), dtype))
            layers = tuple(twin.children().values())
        rows = [("layer", "output", "parameters")]
        for i, layer in enumerate(layers):
            shape = "?" if layer.output_shape is None else str(layer.output_shape)
            count = sum(parameter.size for parameter in layer.parameters())
            rows.append((f"{i} {type(layer).__name__}", shape, str(count)))
        total = sum(parameter.size for parameter in self.parameters())
        rows.append((self.name or "total", "", str(total)))
        wide = [max(len(row[k]) for row in rows) for k in range(3)]
        lines = [f"{a:<{wide[0]}}  {b:<{wide[1]}}  {c:>{wide[2]}}" for a, b, c in rows]
        rule = "-" * len(lines[0])
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


@register(onnx=onnx.residual)
class Residual(Layer):
    """y = body(x) + shortcut(x): He et al. 2016.

    Parameters
    ----------
    body : Layer
        Usually a `Sequential`.
    shortcut : Layer, optional
        What brings `x` to the shape of the body's output; None passes `x` on as it is.

    Raises
    ------
    TypeError, ValueError
        If an argument is no layer, or one layer appears twice; in the forward pass, if both outputs
        differ in shape or dtype.

    Examples
    --------
    >>> from fastconv.nn import Conv
    >>> block = Residual(Conv(4, 4, 3, padding=1, rng=0))
    >>> block.forward(np.zeros((2, 5, 5, 4), np.float32)).shape
    (2, 5, 5, 4)
    """

    def __init__(self, body: Layer, shortcut: Layer | None = None) -> None:
        super().__init__()
        given: dict[str, Any] = {"body": body, "shortcut": shortcut}
        for name, layer in given.items():
            if not isinstance(layer, Layer) and not (layer is None and name == "shortcut"):
                raise TypeError(f"{name}: a fastconv.nn layer is needed, got {shown(layer)}")
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
        return {k: None if layer is None else described(layer) for k, layer in parts.items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Layer:
        """Rebuild the layers inside, with zero weights."""
        return cls(**{name: item and built(item) for name, item in config.items()})

    def lower(self, graph: Graph, x: Value) -> Lowered:
        """Both passes, as operations."""
        body, shortcut = graph.setting(self, "body"), graph.setting(self, "shortcut")
        with graph.inside("body", "body", body):
            y, back = lowered(body, graph, x)
        side, side_back = x, None
        if shortcut is not None:
            with graph.inside("shortcut", "shortcut", shortcut):
                side, side_back = lowered(shortcut, graph, x)
        if y.shape != side.shape or y.dtype != side.dtype:
            raise self._apart(y, side)

        def backward(dy: Value, need: bool) -> Value | None:
            side_dx: Value | None = dy
            if side_back is not None:
                with graph.inside("shortcut", "shortcut", shortcut):
                    side_dx = side_back(dy, need)
            with graph.inside("body", "body", body):
                dx = back(dy, need)
            if dx is None or side_dx is None:
                return None
            return each(graph, "backward", "add", dx, side_dx)

        return each(graph, "forward", "add", y, side), backward

    @quiet
    def forward(self, x: Array) -> Array:
        """Add the body's output and the shortcut's."""
        check_array("x", x, self)
        y = self._way("body", "forward", x)
        side = x if self.shortcut is None else self._way("shortcut", "forward", x)
        if y.shape != side.shape or y.dtype != side.dtype:
            raise self._apart(y, side)
        self._cache = (y.shape, y.dtype)
        return self._sum(y, side)

    def _apart(self, y: Any, side: Any) -> Exception:
        """The error of a body and a shortcut that do not fit; both have a shape and a dtype."""
        same = "shape" if y.shape != side.shape else "dtype"
        return layer_error(
            ValueError if same == "shape" else TypeError,
            self,
            f"body: its output {getattr(y, same)} and the shortcut's {getattr(side, same)} "
            f"must have one {same}",
        )

    def _way(self, name: str, method: str, array: Array) -> Array:
        layer: Layer = getattr(self, name)
        try:
            result: Array = getattr(layer, method)(array)
        except Exception as error:
            locate(error, name, layer)
            raise
        return result

    @quiet
    def backward(self, dy: Array) -> Array:
        """Return `dx`: the sum of what comes back through body and shortcut."""
        self._check_dy(dy, *self._saved(self._cache))
        side = dy if self.shortcut is None else self._way("shortcut", "backward", dy)
        return self._sum(self._way("body", "backward", dy), side)

    def _sum(self, a: Array, b: Array) -> Array:
        if a.dtype != b.dtype:  # layers of one's own may change the dtype: NumPy's rules
            return a + b
        total: Array = self._pick(elementwise, naive_elementwise).add(a, b)
        return total


@quiet
def predict(model: Layer, x: Array, batch_size: int = 256) -> Array:
    """Outputs of any layer for `x`; see `Sequential.predict`.

    Examples
    --------
    >>> from fastconv.nn import Flatten
    >>> predict(Flatten(), np.zeros((3, 2, 2, 1), np.float32)).shape
    (3, 4)
    """
    batch_size = positive_int("batch_size", batch_size)
    check_array("x", x)
    if x.ndim < 1:
        raise ValueError(f"x: images (m, ...) are needed, got shape {x.shape}")
    starts = range(0, max(len(x), 1), batch_size)  # one empty batch where m = 0
    batches = [x[i : i + batch_size] for i in starts]
    forwards = [forward_of(model, batch) for batch in (batches[0], batches[-1])]
    first, last = forwards
    if first is None or last is None:
        run = runner(model)
        return np.concatenate([run(batch) for batch in batches])
    y: Array = np.empty((len(x), *first.y.shape[1:]), first.y.dtype)
    for i, batch in zip(starts, batches, strict=True):
        forward = first if len(batch) == len(batches[0]) else last
        forward.run(batch, y[i : i + len(batch)])
    return y


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


def _refuse_repeats(container: Layer) -> None:
    # A layer keeps what backward needs of its last forward pass: it can stand in one place only.
    seen: dict[int, str] = {}
    for path, layer in container.walk():
        if id(layer) in seen:
            name = type(layer).__name__
            raise ValueError(f"layers: one {name} stands at {seen[id(layer)]} and at {path}")
        seen[id(layer)] = path
