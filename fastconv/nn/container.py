"""A chain of layers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from operator import index
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, SupportsIndex, overload

import numpy as np

from fastconv.nn.base import Layer
from fastconv.nn.checks import Array, layer_error, locate, quiet, shown
from fastconv.nn.children import refuse_repeats
from fastconv.nn.fusing import Rest, lowered_chain
from fastconv.nn.inference import InferencePlan, plan_inference, predict
from fastconv.nn.lowering import Lowered
from fastconv.nn.names import unknown_method
from fastconv.nn.onnx import layers as onnx
from fastconv.nn.registry import built, described, register
from fastconv.nn.sources import Data
from fastconv.nn.storage import load_model, save_model
from fastconv.nn.summary import summary
from fastconv.nn.weights import load_weights, save_weights
from fastconv.program.graph import Graph, Value
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
        Also ``len(model)``, ``model[i]``, ``model[a:b]`` and ``for layer in model``.

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

    layer_attributes: ClassVar[dict[str, str]] = {"layers": "several"}

    def __init__(
        self, *layers: Layer, name: str | None = None, ops: ModuleType | None = None
    ) -> None:
        super().__init__()
        self.layers = layers
        self.name = name
        refuse_repeats(self)
        if ops is not None:
            self.ops = ops
        for path, parameter in self.named_parameters().items():
            parameter.name = path

    def children(self) -> dict[str, Layer]:
        """The layers, by their index."""
        return {str(i): layer for i, layer in enumerate(self.layers)}

    def __repr__(self) -> str:
        count = sum(parameter.size for parameter in self.parameters())
        name = f" {self.name}" if self.name else ""
        layers = f"{len(self.layers)} layer{'s' * (len(self.layers) > 1)}"
        return f"<{type(self).__name__}{name}: {layers}, {count:,} parameters>"

    def _repr_html_(self) -> str:
        return summary(self, None)._repr_html_()

    def __len__(self) -> int:
        """How many layers there are."""
        return len(self.layers)

    def __iter__(self) -> Iterator[Layer]:
        """The layers, in the order of the forward pass."""
        return iter(self.layers)

    @overload
    def __getitem__(self, key: SupportsIndex) -> Layer: ...
    @overload
    def __getitem__(self, key: slice) -> Sequential: ...
    def __getitem__(self, key: SupportsIndex | slice) -> Layer:
        """A layer; or of a slice a chain of the same layers, which share their parameters.

        Raises
        ------
        IndexError
            If there is none.
        TypeError
            If it is no integer and no slice.
        """
        if not isinstance(key, slice):
            if not hasattr(key, "__index__"):
                raise TypeError(f"layers: an index or a slice is needed, got {shown(key)}")
            if not -len(self) <= index(key) < len(self):
                raise IndexError(f"layers: there are {len(self)}, got index {index(key)}")
            return self.layers[key]
        chosen = self.layers[key]
        if not chosen:
            raise IndexError(f"layers: there are {len(self)}, and none in {shown(key)}")
        names = [parameter.name for layer in chosen for parameter in layer.parameters()]
        part = Sequential(*chosen)
        part._ops, part.training = self._ops, self.training
        for parameter, name in zip(part.parameters(), names, strict=True):
            parameter.name = name  # what it is called in the whole
        return part

    if not TYPE_CHECKING:  # to type checkers an unknown name is an error

        def __getattr__(self, name: str) -> Any:
            raise unknown_method(type(self).__name__, name)

    def __dask_tokenize__(self) -> tuple[str, str]:
        """What tells the model from others in a graph of dask: layers and weights of now."""
        from fastconv.nn.digest import digest

        return "fastconv model", digest(self)

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

    def lower(self, graph: Graph, x: Value, rest: Rest | None = None) -> Lowered:
        """Both passes, as operations: those of all layers; and of the `rest`, if they can."""
        graph.setting(self, "layers")
        return lowered_chain(self.layers, graph, x, rest)

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

    def predict(
        self,
        x: Data,
        batch_size: int = 256,
        *,
        scale: float | None = None,
        transform: Callable[[Array], Array] | None = None,
    ) -> Array:
        """Outputs for `x` (m, ...) in evaluation mode, `batch_size` images at a time.

        `x` is an array, or what is read like one, a few batches at a time: `np.memmap`, arrays of
        zarr and h5py, a folder that is read lazily; or an iterable of batches, of images alone or
        pairs whose labels are left out. `scale` and `transform` are those of `fit`.

        Nothing of the model changes (see `Layer.infer`): several threads may predict at once, and
        `backward` still belongs to the last `forward`.

        Raises
        ------
        ValueError, TypeError
            Naming the argument, and the layer where the images do not fit.
        """
        return predict(self, x, batch_size, scale=scale, transform=transform)

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

    def save_weights(self, path: str | os.PathLike[str]) -> None:
        """Write parameters and running statistics alone, for `load_weights`.

        Parameters
        ----------
        path : path
            Its suffix says which file it is: ``.npz``, or ``.safetensors`` (needs the extra
            `weights`), both with our names and axes, kernels (KH, KW, C/G, F). Complete or absent
            afterwards, as with `save`.

        Raises
        ------
        ValueError
            If the name ends otherwise.
        ImportError
            If safetensors is not installed.
        """
        save_weights(self, path)

    def load_weights(
        self, path: str | os.PathLike[str], *, input_shape: tuple[int, ...] | None = None
    ) -> None:
        """Read the weights of a model that is made already: our own, PyTorch's or Keras's.

        - ``.npz``: what `save_weights` or `save` wrote;
        - ``.safetensors``: what `save_weights` wrote, or a PyTorch `state_dict`
          (``safetensors.torch.save_file(model.state_dict(), path)``): kernels (F, C, KH, KW) are
          turned into (KH, KW, C, F), dense weights (outputs, inputs) into (inputs, outputs), and
          behind Flatten from channels first to channels last;
        - ``.weights.h5`` and ``.keras`` of Keras 3, whose axes are ours already.

        PyTorch's and Keras's modules are matched with layers of their kind, by their paths where
        these are the same, else in the order of their names, numbers as numbers; every shape is
        compared. `epsilon` of a normalisation is not in these files: it is 1e-5 here and in
        PyTorch, 1e-3 in Keras.

        Parameters
        ----------
        path : path
        input_shape : tuple of int, optional
            Shape of one image, (H, W, C): needed for weights of PyTorch behind Flatten, where the
            model has not seen an image yet.

        Raises
        ------
        FileNotFoundError, ValueError
            If there is no such file, or it is damaged or belongs to another model; nothing is
            changed then.
        ImportError
            If safetensors or h5py is not installed: ``pip install "fastconv[weights]"``.

        Examples
        --------
        >>> import tempfile
        >>> from fastconv.examples import binary_cnn
        >>> model, other = binary_cnn(seed=0), binary_cnn(seed=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save_weights(os.path.join(folder, "weights.npz"))
        ...     other.load_weights(os.path.join(folder, "weights.npz"))
        >>> np.array_equal(model.layers[0].w.value, other.layers[0].w.value)
        True
        """
        load_weights(self, path, input_shape)

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
        """A table of the layers; a notebook shows it as HTML.

        For each layer: the shape of one image's output; the number of parameters; multiply-adds of
        its convolutions and dense layers for one image; bytes of the output, which training keeps
        for the way back; and how many pixels of the image, on each axis, an output sees (its
        receptive field).

        Parameters
        ----------
        input_shape : tuple of int, optional
            Shape of one image, to find the output shapes with an empty batch; otherwise those of
            the last forward pass are shown, or "?".

        Returns
        -------
        str

        Examples
        --------
        >>> from fastconv.examples import binary_cnn
        >>> print(binary_cnn().summary((8, 8, 1)))
        layer       output     parameters  multiply-adds  bytes  sees
        -------------------------------------------------------------
        0 Conv      (6, 6, 1)          10            324    144   3x3
        1 ReLU      (6, 6, 1)           0              0    144   3x3
        2 MaxPool   (3, 3, 1)           0              0     36   4x4
        3 Flatten   (9,)                0              0     36   all
        4 Dense     (1,)               10              9      4   all
        -------------------------------------------------------------
        binary_cnn                     20            333    364
        """
        return summary(self, input_shape)
