"""Parameters and the layer interface: what every layer, container and optimizer shares.

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

import operator
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


class Parameter:
    """An array that training changes, and the gradient of the loss with respect to it.

    Parameters
    ----------
    value : ndarray of float32 or float64, any shape
        Kept as it is when it is a contiguous array of its own; otherwise copied.
    name : str
        What messages and saved files call it; a container makes it the path, such as "0.w".

    Attributes
    ----------
    value, grad : ndarray of one shape and dtype
        Updated in place, never replaced.

    Raises
    ------
    TypeError
        If `value` is not a float32 or float64 array.

    Examples
    --------
    >>> Parameter(np.zeros((3, 3, 1, 8), np.float32), "w").grad.shape
    (3, 3, 1, 8)
    """

    def __init__(self, value: Array, name: str) -> None:
        if not isinstance(value, np.ndarray) or value.dtype not in (np.float32, np.float64):
            kind = getattr(value, "dtype", type(value).__name__)
            raise TypeError(f"value: a float32 or float64 array is needed for {name!r}, got {kind}")
        self.value: Array = np.require(value, requirements=("C", "A", "W"))
        self.grad: Array = np.zeros(self.value.shape, self.value.dtype)
        self.name = name

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of `value` and of `grad`."""
        return self.value.shape

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.value.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""
        return self.value.dtype

    def assign(self, value: Array) -> None:
        """Copy `value` into the parameter, in place.

        Raises
        ------
        ValueError, TypeError
            If the shape or the dtype differs: nothing is broadcast or cast.
        """
        _assign(self.value, value, self.name)

    def __repr__(self) -> str:
        return f"Parameter({self.name!r}, shape={self.shape}, dtype={self.dtype})"


def _assign(target: Array, value: Array, name: str) -> None:
    value = np.asarray(value)
    if value.shape != target.shape:
        raise ValueError(f"{name}: expected shape {target.shape}, got {value.shape}")
    if value.dtype != target.dtype:
        raise TypeError(f"{name}: expected dtype {target.dtype}, got {value.dtype}")
    target[...] = value


class Layer:
    """A step of a network: `forward(x) -> y`, `backward(dy) -> dx`, `parameters()`.

    A layer of one's own derives from this class, calls ``super().__init__()``, makes its parameters
    with `add_parameter`, and writes `forward` and `backward`. `backward` belongs to the last
    `forward`; it *writes* the parameters' gradients (it does not add to them).

    Attributes
    ----------
    training : bool
        True (the default) while training: Dropout drops, BatchNorm uses the batch's statistics.
    output_shape : tuple of int, or None
        Shape of one image's output in the last forward pass of the container; None before it.
    """

    def __init__(self) -> None:
        self.training = True
        self.output_shape: tuple[int, ...] | None = None
        self._ops: Any = None
        self._parameters: dict[str, Parameter] = {}
        self._buffers: dict[str, Array] = {}
        self._generators: dict[str, np.random.Generator] = {}

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
    def ops(self) -> Any:
        """Module with the public functions: `fastconv`, or `fastconv.reference` for naive loops."""
        if self._ops is None:
            import fastconv  # here, because fastconv may be half imported when nn is

            return fastconv
        return self._ops

    @ops.setter
    def ops(self, module: Any) -> None:
        for _, layer in self.walk():
            layer._ops = module

    def train(self, mode: bool = True) -> Layer:
        """Switch this layer and all below it to training (or, with False, to evaluation)."""
        for _, layer in self.walk():
            layer.training = bool(mode)
        return self

    def eval(self) -> Layer:
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

    def __getstate__(self) -> dict[str, Any]:
        # What backward needs of the last batch stays behind: a pickled or copied layer starts anew.
        return {name: None if name == "_cache" else v for name, v in self.__dict__.items()}

    # For subclasses -----------------------------------------------------------------------------

    def _pick(self, fast: Any, naive: Any) -> Any:
        """Of two modules with the same functions the naive one, if that is what `ops` is."""
        from fastconv import reference

        return naive if self._ops is reference else fast

    def _saved(self, cache: Any) -> Any:
        """What forward kept, or a ValueError when there was no forward."""
        if cache is None:
            raise ValueError(f"{self!r}: backward was called before forward")
        return cache

    def _check_dy(self, dy: Array, shape: tuple[int, ...], dtype: Any) -> None:
        """`dy` must be an array of the last output's shape and dtype."""
        check_array("dy", dy, self)
        if dy.shape != shape:
            raise ValueError(f"{self!r}: dy: expected the shape of y, {shape}, got {dy.shape}")
        if dy.dtype != dtype:
            raise TypeError(f"{self!r}: dy: expected dtype {dtype}, got {dy.dtype}")


def check_array(name: str, value: Any, layer: Layer) -> None:
    """Raise TypeError unless `value` is a NumPy array of float32 or float64 and not masked."""
    if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{layer!r}: {name}: a NumPy array is needed, got {type(value).__name__}")
    if value.dtype not in (np.float32, np.float64):
        raise TypeError(f"{layer!r}: {name}: dtype must be float32 or float64, got {value.dtype}")


def check_input(layer: Layer, x: Any, axes: str, last: int, dtype: Any) -> None:
    """Check a layer's input against `axes` (such as ``"m, H, W"``), its last axis and its dtype."""
    check_array("x", x, layer)
    if x.ndim != axes.count(",") + 2 or x.shape[-1] != last:
        raise ValueError(f"{layer!r}: x: expected ({axes}, {last}), got {x.shape}")
    if x.dtype != dtype:
        raise TypeError(
            f"{layer!r}: x: expected dtype {dtype}, got {x.dtype}; "
            f"convert with x.astype(np.{dtype})"
        )


def positive_int(name: str, value: Any, minimum: int = 1) -> int:
    """`value` as a Python int of at least `minimum`; booleans and floats are a TypeError."""
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: an integer is needed, got {value!r}")
    number = operator.index(value)
    if number < minimum:
        raise ValueError(f"{name}: must be at least {minimum}, got {number}")
    return number


def unit_interval(name: str, value: Any) -> float:
    """`value` as a float in [0, 1); anything else is a ValueError or TypeError."""
    number = real_number(name, value)
    if not 0.0 <= number < 1.0:
        raise ValueError(f"{name}: must be in [0, 1), got {value!r}")
    return number


def real_number(name: str, value: Any, *, minimum: float = -np.inf) -> float:
    """`value` as a finite float of at least `minimum`."""
    if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
        raise TypeError(f"{name}: a number is needed, got {value!r}")
    number = float(value)
    if not np.isfinite(number) or number < minimum:
        bound = "finite" if minimum == -np.inf else f"finite and at least {minimum:g}"
        raise ValueError(f"{name}: must be {bound}, got {value!r}")
    return number


def plain(value: Any) -> Any:
    """Tuples, lists and NumPy scalars as the nested tuples and scalars that JSON can hold."""
    if isinstance(value, (tuple, list)):
        return tuple(plain(item) for item in value)
    if isinstance(value, np.generic):
        return value.item()
    return value
