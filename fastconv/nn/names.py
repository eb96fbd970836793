"""Names that people bring from PyTorch and Keras, and what they are called here.

============================================ ==================================================
PyTorch, Keras                               here
============================================ ==================================================
Conv1d Conv2d Conv3d, Conv2D                 `Conv`: the window's axes are the rank
ConvTranspose2d, Conv2DTranspose             `ConvTranspose`
DepthwiseConv2D                              ``Conv(..., groups=channels)``
SeparableConv2D                              `SeparableConv`
Linear, Dense                                `Dense`
MaxPool2d, MaxPooling2D                      `MaxPool`
AvgPool2d, AveragePooling2D                  `AvgPool`
AdaptiveAvgPool2d, AdaptiveMaxPool2d         `AdaptiveAvgPool`, `AdaptiveMaxPool`
GlobalAveragePooling2D, GlobalMaxPooling2D   `GlobalAvgPool`, `GlobalMaxPool`
BatchNorm2d, BatchNormalization              `BatchNorm`
LayerNormalization, GroupNormalization       `LayerNorm`, `GroupNorm`
InstanceNorm2d                               `InstanceNorm`
Dropout2d, SpatialDropout2D                  `SpatialDropout`
Concatenate, torch.cat                       `Concat`, which holds the branches
Add                                          `Residual`, which holds body and shortcut
UpSampling2D, ZeroPad2d, ZeroPadding2D       `Upsample`, `Pad`
ReflectionPad2d, ReplicationPad2d            ``Pad(n, "reflect")``, ``Pad(n, "edge")``
CrossEntropyLoss,
SparseCategoricalCrossentropy                `SoftmaxCrossEntropy`, of logits
BCEWithLogitsLoss, BinaryCrossentropy        `BinaryCrossEntropy`, of logits
MSELoss, HuberLoss                           `MeanSquaredError`, `Huber`
Module                                       `Layer`
============================================ ==================================================

Arguments: in_channels, out_channels and kernel_size are `channels`, `filters` and `window`;
in_features, out_features and units are `inputs` and `outputs`; num_features and normalized_shape
are `channels`; eps is `epsilon`, p is `rate`, negative_slope is `slope`, scale_factor is `factor`;
strides, dilation_rate, pool_size and use_bias are `stride`, `dilation`, `window` and `bias`.

Where the same word means another thing:

- A kernel is ``(KH, KW, C/G, F)``, as Keras's; PyTorch's ``(F, C/G, KH, KW)`` is
  ``w.transpose(2, 3, 1, 0)`` here, and so is that of a transposed convolution. A dense layer's
  weights are ``(inputs, outputs)``, as Keras's; PyTorch's are the transposed.
- `BatchNorm`'s momentum is the share that stays, as Keras's: 0.9 is PyTorch's 0.1.
- Images are ``(m, H, W, C)``, as Keras's, and losses take logits, as PyTorch's.
- Gradients are written, not added: there is no ``zero_grad``.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable

__all__ = ["ARGUMENTS", "FOREIGN", "METHODS", "check_arguments", "meant", "unknown_method"]

FOREIGN = {
    "Add": "Residual",
    "AveragePooling": "AvgPool",
    "BCEWithLogitsLoss": "BinaryCrossEntropy",
    "BCELoss": "BinaryCrossEntropy",
    "BatchNormalization": "BatchNorm",
    "BinaryCrossentropy": "BinaryCrossEntropy",
    "BinaryFocalCrossentropy": "FocalLoss",
    "CategoricalCrossentropy": "SoftmaxCrossEntropy",
    "CategoricalFocalCrossentropy": "FocalLoss",
    "Concatenate": "Concat",
    "Convolution": "Conv",
    "CosineAnnealingLR": "CosineDecay",
    "CrossEntropyLoss": "SoftmaxCrossEntropy",
    "DepthwiseConv": "Conv",
    "GlobalAveragePooling": "GlobalAvgPool",
    "GlobalMaxPooling": "GlobalMaxPool",
    "GroupNormalization": "GroupNorm",
    "HuberLoss": "Huber",
    "LayerNormalization": "LayerNorm",
    "Linear": "Dense",
    "MSELoss": "MeanSquaredError",
    "MaxPooling": "MaxPool",
    "Module": "Layer",
    "NLLLoss": "SoftmaxCrossEntropy",
    "OneCycleLR": "OneCycle",
    "ReduceLROnPlateau": "ReduceOnPlateau",
    "ReflectionPad": "Pad",
    "ReplicationPad": "Pad",
    "SmoothL1Loss": "Huber",
    "SparseCategoricalCrossentropy": "SoftmaxCrossEntropy",
    "StepLR": "StepDecay",
    "Swish": "SiLU",
    "UpSampling": "Upsample",
    "ZeroPad": "Pad",
    "ZeroPadding": "Pad",
}
# Arguments of constructors elsewhere; those that a class has under this name are its own.
ARGUMENTS = {
    "dilation_rate": "dilation",
    "eps": "epsilon",
    "in_channels": "channels",
    "in_features": "inputs",
    "kernel_size": "window",
    "negative_slope": "slope",
    "normalized_shape": "channels",
    "num_channels": "channels",
    "num_features": "channels",
    "num_groups": "groups",
    "out_channels": "filters",
    "out_features": "outputs",
    "output_size": "size",
    "p": "rate",
    "pool_size": "window",
    "scale_factor": "factor",
    "strides": "stride",
    "units": "outputs",
    "upscale_factor": "factor",
    "use_bias": "bias",
    "weight": "class_weight",
}
RANKS = ("1d", "2d", "3d", "1D", "2D", "3D", "1DTranspose", "2DTranspose", "3DTranspose")
# What a model is asked for elsewhere, and where that is here.
METHODS = {
    "add": "give all layers to Sequential(...)",
    "append": "give all layers to Sequential(...)",
    "compile": "loss and optimizer are arguments of nn.fit",
    "cuda": "there is no GPU",
    "extend": "give all layers to Sequential(...)",
    "evaluate": "nn.evaluate(model, loss, x, y)",
    "fit": "nn.fit(model, loss, optimizer, x, y)",
    "get_weights": "named_parameters()",
    "insert": "give all layers to Sequential(...)",
    "load_state_dict": "load_weights(path) reads a file of them",
    "state_dict": "named_parameters() and named_buffers(); save_weights(path) writes them",
    "to": "there is no GPU; dtype= of the layers says what they compute in",
    "zero_grad": "backward writes gradients and does not add to them: nothing is to be zeroed",
}  # fmt: skip


def meant(name: str, known: Iterable[str]) -> str | None:
    """The name in `known` that a name from elsewhere, or a mistyped one, stands for.

    Examples
    --------
    >>> meant("Conv2DTranspose", ["Conv", "ConvTranspose"]), meant("MaxPol", ["MaxPool"])
    ('ConvTranspose', 'MaxPool')
    """
    names = set(known)
    plain = name
    for rank in RANKS:
        if name.endswith(rank):
            plain = name.removesuffix(rank) + rank[2:]
    if plain == "Dropout" != name or plain == "SpatialDropout":
        plain = "SpatialDropout"
    found = FOREIGN.get(plain, plain)
    if found in names:
        return found
    lower = {known.lower(): known for known in sorted(names)}
    close = difflib.get_close_matches(found.lower(), lower, 1, 0.75)
    return lower[close[0]] if close else None


def check_arguments(kind: type, given: Iterable[str]) -> None:
    """Raise TypeError if an argument has its name from elsewhere.

    Examples
    --------
    >>> from fastconv.nn import Conv
    >>> check_arguments(Conv, ["window", "kernel_size"])
    Traceback (most recent call last):
    TypeError: Conv has no argument kernel_size; did you mean window?
    """
    foreign = [name for name in given if name in ARGUMENTS]
    if not foreign:
        return
    known = inspect.signature(kind.__init__).parameters  # type: ignore[misc]
    if any(p.kind is p.VAR_KEYWORD for p in known.values()):
        return
    for name in foreign:
        if name not in known and ARGUMENTS[name] in known:
            raise TypeError(
                f"{kind.__name__} has no argument {name}; did you mean {ARGUMENTS[name]}?"
            )


def unknown_method(kind: str, name: str) -> AttributeError:
    """What a model says that is asked for another library's method.

    Examples
    --------
    >>> print(unknown_method("Sequential", "fit"))
    Sequential has no fit; here: nn.fit(model, loss, optimizer, x, y)
    """
    cure = f"; here: {METHODS[name]}" if name in METHODS else ""
    return AttributeError(f"{kind} has no {name}{cure}", name=name)
