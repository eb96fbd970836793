"""ONNX's reference evaluator: its own operators beside fastconv's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import parser
from onnx.reference import ReferenceEvaluator

from fastconv.adapters.onnx import OPS
from host_cases import Case

# (1, 16, 32, 32): small enough for the stock loops.
NODES = {
    "Conv 3x3, 32 filters": "Conv <pads = [1, 1, 1, 1]> (x, w)",
    "MaxPool 3x3, stride 2": "MaxPool <kernel_shape = [3, 3], strides = [2, 2]> (x)",
    "AveragePool 2x2": "AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (x)",
}
NETWORK = "light_squeezenet.onnx"  # in ONNX's wheel, with weights that are made up


def cases() -> list[Case]:
    """Single operators, and one whole network on one image of 224 x 224."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 16, 32, 32)).astype(np.float32)
    w = rng.normal(size=(32, 16, 3, 3)).astype(np.float32)
    found = [
        _case(f"{name} on (1, 16, 32, 32)", _node(text), {"x": x, "w": w})
        for name, text in NODES.items()
    ]
    network = onnx.load(Path(onnx.__file__).parent / "backend/test/data/light" / NETWORK)
    constants = {constant.name for constant in network.graph.initializer}
    (name,) = (x.name for x in network.graph.input if x.name not in constants)
    image = rng.random((1, 3, 224, 224), np.float32)
    # Up to the Softmax at the end, which ONNX's own takes over another axis than opset 9 says.
    logits = list(network.graph.node[-1].input)
    return [*found, _case("SqueezeNet, one image", network, {name: image}, logits)]


def _node(text: str) -> Any:
    return parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> '
        "net (float[1, 16, 32, 32] x, float[32, 16, 3, 3] w) => (float[m, c, h, v] y) "
        f"{{y = {text}}}"
    )


def _case(
    name: str, model: Any, feeds: dict[str, np.ndarray], outputs: list[str] | None = None
) -> Case:
    stock, fast = ReferenceEvaluator(model), ReferenceEvaluator(model, new_ops=OPS)
    return Case(name, lambda: stock.run(outputs, feeds), lambda: fast.run(outputs, feeds))
