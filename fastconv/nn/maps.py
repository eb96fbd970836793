"""Where a network looks: maps of an image that tell what its answer depends on."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv.nn.checks import Array, as_array, check_array, positive_int, quiet, shown
from fastconv.nn.container import Sequential

__all__ = ["class_activation_map", "saliency"]


@quiet
def saliency(model: Sequential, x: Array, classes: ArrayLike | None = None) -> Array:
    """How much each pixel moves the output of a class: Simonyan, Vedaldi and Zisserman 2014.

    It is the largest magnitude, over the channels, of the output's gradient with respect to the
    pixel, in evaluation mode. The model stays as it is.

    Parameters
    ----------
    model : Sequential
        Of outputs (m, classes); one output stands for two classes.
    x : ndarray (m, H, W, C)
    classes : int or array (m,), optional
        By default, of each image, the class that the model finds.

    Returns
    -------
    ndarray (m, H, W)

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> from fastconv.examples import digits_cnn
    >>> saliency(digits_cnn(seed=0), np.ones((2, 8, 8, 1), np.float32)).shape
    (2, 8, 8)
    """
    twin, dy = _passed(model, x, classes)
    found: Array = np.abs(twin.backward(dy)).max(axis=-1)
    return found


@quiet
def class_activation_map(
    model: Sequential, x: Array, classes: ArrayLike | None = None, *, layer: int | None = None
) -> Array:
    """Where in the image a layer found what speaks for a class: Selvaraju et al. 2017 (Grad-CAM).

    The channels of the layer's output, weighted by the means of their gradients and added up; what
    speaks against the class is 0. The map is brought to the image's size, linearly, and its largest
    value is 1. The model stays as it is.

    Parameters
    ----------
    model, x, classes
        As of :func:`saliency`.
    layer : int, optional
        Which of the model's layers; by default the last whose outputs are images.

    Returns
    -------
    ndarray (m, H, W)

    Raises
    ------
    TypeError, ValueError
        Naming the argument; also where no layer has images as its outputs.

    Examples
    --------
    >>> from fastconv.examples import digits_cnn
    >>> class_activation_map(digits_cnn(seed=0), np.ones((2, 8, 8, 1), np.float32)).shape
    (2, 8, 8)
    """
    from scipy.ndimage import zoom

    twin, dy = _passed(model, x, classes)
    shapes = [inner.output_shape or () for inner in twin.layers]
    spatial = [i for i, shape in enumerate(shapes) if len(shape) == x.ndim - 1]
    if layer is None:
        if not spatial:
            raise ValueError("model: no layer of it has images as its outputs")
        layer = spatial[-1]
    layer = positive_int("layer", layer, minimum=0)
    if layer not in spatial:
        raise ValueError(f"layer: must be one with images as its outputs, {spatial}, got {layer}")
    outputs = twin.activations(x)[layer]
    gradients = twin.deltas(dy)[layer + 1] if layer + 1 < len(twin.layers) else dy
    axes = tuple(range(1, x.ndim - 1))
    weights = gradients.mean(axis=axes, keepdims=True)
    small = np.maximum((outputs * weights).sum(axis=-1), 0)
    factors = [n / k for n, k in zip(x.shape[1:-1], small.shape[1:], strict=True)]
    found: Array = zoom(small, (1, *factors), order=1, mode="nearest", grid_mode=True)
    largest = found.max(axis=axes, keepdims=True)
    return np.divide(found, largest, out=np.zeros_like(found), where=largest > 0)


def _passed(model: Any, x: Any, classes: Any) -> tuple[Sequential, Array]:
    """A copy of the model after its forward pass, and the gradient to begin backwards with."""
    if not isinstance(model, Sequential):
        raise TypeError(f"model: an nn.Sequential is needed, got {shown(model)}")
    check_array("x", x)
    if x.ndim < 3 or not len(x):
        raise ValueError(f"x: images (m, H, W, C) are needed, got {x.shape}")
    modules: dict[int, Any] = {id(layer._ops): layer._ops for _, layer in model.walk()}
    twin = copy.deepcopy(model, modules).eval()  # modules are none of what can be copied
    z = twin.forward(x)
    if z.ndim != 2:
        raise ValueError(f"model: outputs (m, classes) are needed, got {z.shape}")
    count = max(2, z.shape[1])
    if classes is None:
        chosen = z.argmax(axis=1) if z.shape[1] > 1 else (z[:, 0] > 0).astype(int)
    else:
        chosen = np.broadcast_to(as_array("classes", classes), len(z))
        if chosen.dtype.kind not in "iu":
            raise TypeError(f"classes: integers are needed, got {chosen.dtype}")
        if chosen.min() < 0 or chosen.max() >= count:
            raise ValueError(f"classes: must be in 0 .. {count - 1}, got {shown(classes)}")
    dy = np.zeros_like(z)
    if z.shape[1] == 1:
        dy[:, 0] = np.where(chosen == 1, 1, -1)
    else:
        dy[np.arange(len(z)), chosen] = 1
    return twin, dy
