"""Layers, losses, optimizers and a training loop for small convolutional networks.

Layers compute through the public functions of `fastconv` or, with ``ops=fastconv.reference``,
through naive loops: the same network runs on both.

Examples
--------
>>> import numpy as np
>>> from fastconv import nn
>>> rng = np.random.default_rng(0)
>>> model = nn.Sequential(
...     nn.Conv(1, 8, 3, padding="same", activation="relu", rng=rng),
...     nn.MaxPool(2),
...     nn.Flatten(),
...     nn.Dense(4 * 4 * 8, 10, rng=rng),
... )
>>> model.forward(np.zeros((5, 8, 8, 1), np.float32)).shape
(5, 10)
"""

from typing import TYPE_CHECKING, Any

from fastconv.nn.activations import Dropout, ReLU, Sigmoid, SpatialDropout, Tanh, sigmoid
from fastconv.nn.adaptive import AdaptiveAvgPool, AdaptiveMaxPool, GlobalMaxPool
from fastconv.nn.averages import ParameterAverage
from fastconv.nn.base import Layer, Parameter
from fastconv.nn.branches import Concat, Identity, SeparableConv
from fastconv.nn.checkpoint import Checkpoint, load_checkpoint, previous_path, save_checkpoint
from fastconv.nn.children import evaluating
from fastconv.nn.container import Sequential
from fastconv.nn.conv import Conv, ConvTranspose
from fastconv.nn.dense import Dense, Flatten
from fastconv.nn.focal import FocalLoss
from fastconv.nn.history import EarlyStopping, FitState, History
from fastconv.nn.inference import InferencePlan
from fastconv.nn.logs import CSVLog, TensorBoard
from fastconv.nn.loss import Loss
from fastconv.nn.losses import (
    BinaryCrossEntropy,
    Huber,
    MeanSquaredError,
    SoftmaxCrossEntropy,
)
from fastconv.nn.maps import class_activation_map, saliency
from fastconv.nn.names import meant
from fastconv.nn.normalisation import BatchNorm
from fastconv.nn.norms import GroupNorm, InstanceNorm, LayerNorm
from fastconv.nn.onnx.reader import from_onnx
from fastconv.nn.optimizer import Optimizer
from fastconv.nn.optimizers import SGD, Adam, AdamW, RMSprop
from fastconv.nn.passes import evaluate, train_step
from fastconv.nn.pooling import AvgPool, GlobalAvgPool, MaxPool
from fastconv.nn.rectifiers import ELU, GELU, Hardswish, LeakyReLU, SiLU, Softplus
from fastconv.nn.registry import register
from fastconv.nn.resampling import Pad, PixelShuffle, Upsample
from fastconv.nn.residual import Residual
from fastconv.nn.schedules import (
    CosineDecay,
    ExponentialDecay,
    OneCycle,
    ReduceOnPlateau,
    Schedule,
    StepDecay,
)
from fastconv.nn.step import StepPlan, plan_step
from fastconv.nn.training import fit

__all__ = [
    "ELU",
    "GELU",
    "SGD",
    "Adam",
    "AdamW",
    "AdaptiveAvgPool",
    "AdaptiveMaxPool",
    "AvgPool",
    "BatchNorm",
    "BinaryCrossEntropy",
    "CSVLog",
    "Checkpoint",
    "Concat",
    "Conv",
    "ConvTranspose",
    "CosineDecay",
    "Dense",
    "Dropout",
    "EarlyStopping",
    "ExponentialDecay",
    "FitState",
    "Flatten",
    "FocalLoss",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "GroupNorm",
    "Hardswish",
    "History",
    "Huber",
    "Identity",
    "InferencePlan",
    "InstanceNorm",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Loss",
    "MaxPool",
    "MeanSquaredError",
    "OneCycle",
    "Optimizer",
    "Pad",
    "Parameter",
    "ParameterAverage",
    "PixelShuffle",
    "RMSprop",
    "ReLU",
    "ReduceOnPlateau",
    "Residual",
    "Schedule",
    "SeparableConv",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SoftmaxCrossEntropy",
    "Softplus",
    "SpatialDropout",
    "StepDecay",
    "StepPlan",
    "Tanh",
    "TensorBoard",
    "Upsample",
    "class_activation_map",
    "evaluate",
    "evaluating",
    "fit",
    "from_onnx",
    "load_checkpoint",
    "plan_step",
    "previous_path",
    "register",
    "saliency",
    "save_checkpoint",
    "sigmoid",
    "train_step",
]

if not TYPE_CHECKING:  # to type checkers a mistyped name is an error

    def __getattr__(name: str) -> Any:
        found = None if name.startswith("_") else meant(name, __all__)
        cure = f"; did you mean {found}?" if found else ""
        raise AttributeError(f"fastconv.nn has no {name}{cure}", name=name)
