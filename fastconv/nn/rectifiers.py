"""Activations that are nearly ReLU; their derivatives are functions of what went in."""

from __future__ import annotations

from typing import Any, ClassVar

from fastconv.nn.base import Layer
from fastconv.nn.checks import Array, check_array, quiet, real_number
from fastconv.nn.lowering import Lowered
from fastconv.nn.onnx import layers as onnx
from fastconv.nn.registry import register
from fastconv.program.graph import Graph, Value
from fastconv.program.layers import each
from fastconv.program.naive import rectifiers as naive_rectifiers
from fastconv.program.ops import rectifiers

__all__ = ["ELU", "GELU", "Hardswish", "LeakyReLU", "SiLU", "Softplus"]


class _Rectifier(Layer):
    """One function of every element, with a number or without; the class names it."""

    function: ClassVar[str]
    argument: ClassVar[str | None] = None  # name of the attribute that is its number

    def __init__(self) -> None:
        super().__init__()
        self._cache: Array | None = None

    def config(self) -> dict[str, Any]:
        """Constructor arguments as JSON types."""
        return {} if self.argument is None else {self.argument: getattr(self, self.argument)}

    def lower(self, graph: Graph, x: Value) -> Lowered:
        """Both passes, as operations."""
        name = self.function
        number = 0.0 if self.argument is None else graph.setting(self, self.argument)
        y = each(graph, "forward", name, x, number=number)

        def backward(dy: Value, need: bool) -> Value | None:
            if not need:
                return None
            return each(graph, "backward", f"{name}_delta", dy, x, number=number)

        return y, backward

    def _compute(self, name: str, *arrays: Array) -> Array:
        module = self._pick(rectifiers, naive_rectifiers)
        result: Array = getattr(module, name)(*arrays, *self.config().values())
        return result

    @quiet
    def forward(self, x: Array) -> Array:
        """Apply the function to every element of `x`, any shape."""
        check_array("x", x, self)
        self._cache = x
        return self._compute(self.function, x)

    @quiet
    def backward(self, dy: Array) -> Array:
        """Return `dx` = dy times the derivative at the last input."""
        x = self._saved(self._cache)
        self._check_dy(dy, x.shape, x.dtype)
        return self._compute(f"{self.function}_backward", dy, x)


@register(onnx=onnx.elementwise("LeakyRelu", alpha="slope"), pixelwise=True)
class LeakyReLU(_Rectifier):
    """y = x where x > 0, else slope * x: Maas et al. 2013.

    Parameters
    ----------
    slope : float

    Raises
    ------
    TypeError, ValueError
        If it is no finite number.

    Examples
    --------
    >>> import numpy as np
    >>> LeakyReLU(0.5).forward(np.array([-1.0, 2.0])).tolist()
    [-0.5, 2.0]
    """

    function, argument = "leaky_relu", "slope"

    def __init__(self, slope: float = 0.01) -> None:
        super().__init__()
        self.slope = real_number("slope", slope)


@register(onnx=onnx.elementwise("Elu", alpha="alpha"), pixelwise=True)
class ELU(_Rectifier):
    """y = x where x > 0, else alpha * (exp(x) - 1): Clevert et al. 2016.

    Parameters
    ----------
    alpha : float

    Raises
    ------
    TypeError, ValueError
        If it is no finite number.

    Examples
    --------
    >>> import numpy as np
    >>> ELU().forward(np.array([0.0, 2.0])).tolist()
    [0.0, 2.0]
    """

    function, argument = "elu", "alpha"

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = real_number("alpha", alpha)


@register(onnx=onnx.gelu, pixelwise=True)
class GELU(_Rectifier):
    """y = x Phi(x), with Phi the normal distribution's share below x: Hendrycks and Gimpel 2016.

    The exact one, of erf, as PyTorch's default.

    Examples
    --------
    >>> import numpy as np
    >>> GELU().forward(np.array([-50.0, 0.0, 50.0])).tolist()
    [-0.0, 0.0, 50.0]
    """

    function = "gelu"


@register(onnx=onnx.silu, pixelwise=True)
class SiLU(_Rectifier):
    """y = x sigmoid(x), also called swish: Elfwing et al. 2018.

    Examples
    --------
    >>> import numpy as np
    >>> SiLU().forward(np.zeros(1)).tolist()
    [0.0]
    """

    function = "silu"


@register(onnx=onnx.elementwise("Softplus"), pixelwise=True)
class Softplus(_Rectifier):
    """y = log(1 + exp(x)), without overflow.

    Examples
    --------
    >>> import numpy as np
    >>> Softplus().forward(np.array([-1000.0, 1000.0])).tolist()
    [0.0, 1000.0]
    """

    function = "softplus"


@register(onnx=onnx.elementwise("HardSwish"), pixelwise=True)
class Hardswish(_Rectifier):
    """y = x min(max(x + 3, 0), 6) / 6: Howard et al. 2019.

    Examples
    --------
    >>> import numpy as np
    >>> Hardswish().forward(np.array([-4.0, 1.5, 4.0])).tolist()
    [-0.0, 1.125, 4.0]
    """

    function = "hardswish"
