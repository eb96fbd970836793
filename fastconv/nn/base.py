"""The layer interface: what every layer and container shares.

Vocabulary (the whole package uses nothing else)

====== ==============================================================
m      images in the batch
H W C  input height, width, channels
F      output channels (filters) of a layer
x, y   a layer's input and output
dx, dy gradients of the loss with respect to those ("deltas")
w, b   kernel and bias;  dw, db their gradients
====== ==============================================================

Two rules keep a later fused or distributed training step possible:

- a parameter's `value` and `grad` are arrays that stay the same objects for the whole training:
  optimizers write into `value`, `backward` writes into `grad`, so both may be
  views into one flat buffer;
- a layer computes only through the public functions of its `ops` module, so the same network
  runs on the fast kernels or, with `ops=fastconv.reference`, on naive loops.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from fastconv.nn.checks import (
    Array,
    as_layers,
    assign,
    check_array,
    layer_error,
    shown,
)
from fastconv.nn.copying import Copyable
from fastconv.nn.names import check_arguments
from fastconv.nn.parameter import Parameter

__all__ = ["Layer", "Parameter", "Watched"]


class Watched:
    """An object that tells which of its attributes a forward pass wrote.

    A resumed run compares the attributes that describe an object. What a layer or a loss only
    keeps for `backward` is none of those: see `fastconv.nn.trial`.
    """

    _written: set[str] | None = None

    if not TYPE_CHECKING:  # type checkers know the arguments

        def __new__(cls, *args: Any, **kwargs: Any) -> Self:
            """An object, unless an argument has its name from elsewhere."""
            check_arguments(cls, kwargs)
            return super().__new__(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        if self._written is not None:
            self._written.add(name)
        object.__setattr__(self, name, value)


class Layer(Watched, Copyable):
    """A step of a network: `forward(x) -> y`, `backward(dy) -> dx`, `parameters()`.

    A layer of one's own derives from this class, calls ``super().__init__()``, makes its parameters
    with `add_parameter`, and writes `forward` and `backward`. `backward` belongs to the last
    `forward`; it *writes* the parameters' gradients (it does not add to them).

    Setting a parameter or a buffer copies into it: ``layer.w = array`` is
    ``layer.w.assign(array)``, a ValueError or TypeError where shape or dtype differ.

    Attributes
    ----------
    training : bool
        True (the default) while training: Dropout drops, BatchNorm uses the batch's statistics.
        A layer that is switched off by `eval` before `fit` stays so: it is frozen. Its parameters
        still train; leave them out of the optimizer to keep them too.
    output_shape : tuple of int, or None
        Shape of one image's output in the last forward pass of the container; None before it.
    """

    optional_parameters: tuple[str, ...] = ()  # attributes that are a Parameter or None
    layer_attributes: ClassVar[dict[str, str]] = {}  # each is "one", "optional" or "several"

    def __init__(self) -> None:
        self.training = True
        self.output_shape: tuple[int, ...] | None = None
        self._ops: ModuleType | None = None
        self._parameters: dict[str, Parameter] = {}
        self._buffers: dict[str, Array] = {}
        self._generators: dict[str, np.random.Generator] = {}
        self._unseeded: list[str] = []

    def __setattr__(self, name: str, value: Any) -> None:
        held: Any = self.__dict__.get(name)
        if name in self.layer_attributes or isinstance(held, Layer):
            value = as_layers(name, value, self.layer_attributes.get(name, "optional"), Layer)
        own = isinstance(value, Parameter) and value in self._parameters.values()
        if held is None and value is not None and name in self.optional_parameters and not own:
            raise TypeError(f"{name}: {type(self).__name__} was made without it, so it has none")
        if value is held or own or not self._holds(held):
            super().__setattr__(name, value)
        elif value is None or isinstance(value, Parameter):
            raise TypeError(
                f"{name}: an array is needed, which is copied into the layer's own; "
                f"got {shown(value)}"
            )
        else:
            target: Array = held.value if isinstance(held, Parameter) else held
            assign(target, value, name)

    def _holds(self, held: Any) -> bool:
        """Whether `held` is one of the layer's parameters or buffers."""
        if not isinstance(held, np.ndarray):
            return isinstance(held, Parameter)
        return any(held is buffer for buffer in self._buffers.values())

    # The two passes -----------------------------------------------------------------------------

    def forward(self, x: Array) -> Array:
        """Return the layer's output `y` for the input `x`, and keep what `backward` needs."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, dy: Array) -> Array:
        """Return `dx` for the output's gradient `dy`, and write the parameters' gradients."""
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def backward_parameters(self, dy: Array) -> None:
        """Write the parameters' gradients only.

        A network's first layer needs no `dx`; layers that can leave the work out override this.
        """
        self.backward(dy)

    def __call__(self, x: Array) -> Array:
        """Run `forward`."""
        return self.forward(x)

    # What it holds ------------------------------------------------------------------------------

    def add_parameter(self, name: str, value: Array) -> Parameter:
        """Register a parameter under a name of its own and return it."""
        self._parameters[name] = Parameter(value, name)
        return self._parameters[name]

    def add_buffer(self, name: str, value: object) -> Array:
        """Register an array that is saved and loaded but not trained, and return it.

        It is the layer's to change in place, as BatchNorm does with its running statistics.

        Parameters
        ----------
        name : str
            Also the attribute that holds it afterwards: ``layer.name = array`` copies into it.
        value : array of numbers
            Becomes the buffer, as it is.

        Raises
        ------
        TypeError
            If it is none.
        """
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
            cause = f"value: an array of numbers is needed for {name!r}, got {shown(value)}"
            raise TypeError(cause)
        self._buffers[name] = np.require(value, requirements=("C", "A", "W"))
        setattr(self, name, self._buffers[name])
        return self._buffers[name]

    def add_generator(self, name: str, seed: int | None) -> np.random.Generator:
        """Register a random generator, whose state checkpoints save, and return it.

        With the seed None it starts at a place drawn from the system's entropy, and `fit` reseeds
        it from its own seed and the layer's path.
        """
        self._generators[name] = np.random.default_rng(seed)
        if seed is None:
            self._unseeded.append(name)
        return self._generators[name]

    def reseed(self, seed: int) -> None:
        """Set the generators that were made without a seed, of this layer and all below it.

        Each gets a state of its own, which depends on `seed` and the layer's path alone.
        """
        for path, layer in self.walk():
            for name in layer._unseeded:
                source = np.random.default_rng([seed, *f"{path}.{name}".encode()])
                layer._generators[name].bit_generator.state = source.bit_generator.state

    def children(self) -> dict[str, Layer]:
        """Layers inside this one, by name; empty for a plain layer."""
        return {}

    def walk(self, path: str = "") -> Iterator[tuple[str, Layer]]:
        """Yield `(path, layer)` for this layer and all below it, in forward order."""
        yield path, self
        for name, child in self.children().items():
            yield from child.walk(f"{path}.{name}" if path else name)

    def named_parameters(self) -> dict[str, Parameter]:
        """Parameters by path, such as ``"0.w"`` or ``"3.body.0.b"``."""
        return {
            f"{path}.{name}" if path else name: parameter
            for path, layer in self.walk()
            for name, parameter in layer._parameters.items()
        }

    def parameters(self) -> list[Parameter]:
        """All parameters, in the order of the forward pass."""
        return list(self.named_parameters().values())

    def named_buffers(self) -> dict[str, Array]:
        """Arrays that are saved but not trained (running statistics), by path."""
        return {
            f"{path}.{name}" if path else name: buffer
            for path, layer in self.walk()
            for name, buffer in layer._buffers.items()
        }

    def named_generators(self) -> dict[str, np.random.Generator]:
        """Random generators of the layers, by path: their states belong into a checkpoint."""
        return {
            f"{path}.{name}" if path else name: generator
            for path, layer in self.walk()
            for name, generator in layer._generators.items()
        }

    # Switches -----------------------------------------------------------------------------------

    @property
    def ops(self) -> ModuleType:
        """Module with the public functions: `fastconv`, or `fastconv.reference` for naive loops."""
        if self._ops is None:
            return sys.modules["fastconv"]  # it lies above, and is there: it holds this module
        return self._ops

    @ops.setter
    def ops(self, module: ModuleType) -> None:
        kept = None if module is sys.modules["fastconv"] else module
        for _, layer in self.walk():
            layer._ops = kept

    def train(self, mode: bool = True) -> Self:
        """Switch this layer and all below it to training (or, with False, to evaluation)."""
        for _, layer in self.walk():
            layer.training = bool(mode)
        return self

    def eval(self) -> Self:
        """Switch this layer and all below it to evaluation."""
        return self.train(False)

    # Description --------------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """Constructor arguments as JSON types: what `Sequential.save` writes."""
        raise TypeError(f"{type(self).__name__} has no config(): it cannot be saved")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Layer:
        """Rebuild the layer from `config()` without its weights (they are zero)."""
        return cls(**config)

    def __repr__(self) -> str:
        try:
            config = self.config()
        except TypeError:
            return f"{type(self).__name__}()"
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in config.items())})"

    # For subclasses -----------------------------------------------------------------------------

    def _pick(self, fast: Any, naive: Any) -> Any:
        """Of two modules with the same functions the naive one, if that is what `ops` is."""
        from fastconv import reference

        return naive if self._ops is reference else fast

    def _saved(self, cache: Any) -> Any:
        """What forward kept, or a ValueError when there was no forward."""
        if cache is None:
            raise layer_error(ValueError, self, "backward was called before forward")
        return cache

    def _check_dy(self, dy: Array, shape: tuple[int, ...], dtype: Any) -> None:
        """`dy` must be an array of the last output's shape and dtype."""
        check_array("dy", dy, self)
        if dy.shape != shape:
            cause = f"dy: expected the shape of y, {shape}, got {dy.shape}"
            raise layer_error(ValueError, self, cause)
        if dy.dtype != dtype:
            raise layer_error(TypeError, self, f"dy: expected dtype {dtype}, got {dy.dtype}")
