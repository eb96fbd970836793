"""ONNX: operators for its reference evaluator, and trained networks as ONNX files.

``ReferenceEvaluator(model, new_ops=OPS)`` computes convolutions and poolings with fastconv instead
of Python loops; everything else stays ONNX's own. The operators take 1 to 3 spatial axes, float16,
bfloat16 (computed in float32), float32 and float64, and the 8-bit integers that ONNX has them
for. They follow the specification where ONNX's own operators leave it: `auto_pad` with
dilations, global poolings that are not 2-D, BatchNormalization and Softmax of older opsets.
They follow it where ONNX Runtime does not, too: with `auto_pad`, `ceil_mode` adds no window.

Examples
--------
>>> import numpy as np
>>> from onnx import parser
>>> from onnx.reference import ReferenceEvaluator
>>> model = parser.parse_model('''
...     <ir_version: 8, opset_import: ["" : 17]>
...     net (float[1, 3, 8, 8] x, float[4, 3, 3, 3] w) => (float[1, 4, 6, 6] y) { y = Conv(x, w) }
... ''')
>>> x, w = np.ones((1, 3, 8, 8), "float32"), np.ones((4, 3, 3, 3), "float32")
>>> ReferenceEvaluator(model, new_ops=OPS).run(None, {"x": x, "w": w})[0].shape
(1, 4, 6, 6)
"""

from __future__ import annotations

from fastconv.adapters.onnx.convolutions import (
    Col2Im,
    Conv,
    ConvInteger,
    ConvTranspose,
    QLinearConv,
)
from fastconv.adapters.onnx.deformable import DeformConv
from fastconv.adapters.onnx.pointwise import BatchNormalization, Softmax
from fastconv.adapters.onnx.pools import (
    AveragePool,
    GlobalAveragePool,
    GlobalLpPool,
    GlobalMaxPool,
    LpPool,
    MaxPool,
    MaxUnpool,
)

__all__ = ["OPS"]

OPS = [
    AveragePool,
    BatchNormalization,
    Col2Im,
    Conv,
    ConvInteger,
    ConvTranspose,
    DeformConv,
    GlobalAveragePool,
    GlobalLpPool,
    GlobalMaxPool,
    LpPool,
    MaxPool,
    MaxUnpool,
    QLinearConv,
    Softmax,
]
