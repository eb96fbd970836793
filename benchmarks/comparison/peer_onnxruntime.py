"""ONNX Runtime: a model of one node, forward only, channels first as that is all it takes.

The kernel is a constant of the model, so ONNX Runtime may reorder it before the first call.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from comparison.cases import Call, Case, ConvCase, DeltaCase, PoolCase, UnsupportedError

# Old enough for every release since 2022, new enough for float64 in pooling.
OPSET, IR_VERSION = 15, 8


class OnnxRuntime:
    """An inference engine."""

    def __init__(self) -> None:
        import onnx
        import onnxruntime

        self._onnx, self._ort = onnx, onnxruntime
        self._threads = 1

    @contextmanager
    def threads(self, n: int) -> Iterator[None]:
        """Sessions compute with n threads."""
        before, self._threads = self._threads, n
        try:
            yield
        finally:
            self._threads = before

    def prepare(self, case: Case) -> Call:
        """How ONNX Runtime computes the case."""
        if isinstance(case, DeltaCase):
            raise UnsupportedError("no gradients")
        node, x, constants = _conv(case) if isinstance(case, ConvCase) else _pool(case)
        session = self._session(node, x, constants)
        feed = {"x": x}
        return Call(lambda: session.run(["y"], feed)[0], _images)

    def _session(
        self, node: dict[str, Any], x: np.ndarray, constants: dict[str, np.ndarray]
    ) -> Any:
        helper, ort = self._onnx.helper, self._ort
        kind = helper.np_dtype_to_tensor_dtype(x.dtype)
        inputs = [helper.make_tensor_value_info("x", kind, x.shape)]
        outputs = [helper.make_tensor_value_info("y", kind, None)]
        weights = [self._onnx.numpy_helper.from_array(a, name) for name, a in constants.items()]
        graph = helper.make_graph(
            [helper.make_node(inputs=["x", *constants], outputs=["y"], **node)],
            "one_node",
            inputs,
            outputs,
            weights,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        try:
            return ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no other base class
            if "NOT_IMPLEMENTED" in str(error):
                raise UnsupportedError(f"not implemented for {x.dtype}") from error
            raise


def _conv(case: ConvCase) -> tuple[dict[str, Any], np.ndarray, dict[str, np.ndarray]]:
    if case.product != "forward":
        raise UnsupportedError("no gradients")
    g, (x, w, _, _) = case.problem.geometry, case.operands
    node = {
        "op_type": "Conv",
        "kernel_shape": list(g.window),
        "strides": list(case.problem.stride),
        "dilations": list(case.problem.dilation),
        "pads": [lo for lo, _ in g.pads] + [hi for _, hi in g.pads],
        "group": g.G,
    }
    # (F, C/G, KH, KW)
    kernel = np.ascontiguousarray(np.moveaxis(w, (-1, -2), (0, 1)))
    return node, _channels_first(x), {"w": kernel}


def _pool(case: PoolCase) -> tuple[dict[str, Any], np.ndarray, dict[str, np.ndarray]]:
    names = {"max_pool": "MaxPool", "avg_pool": "AveragePool"}
    if case.product not in names:
        raise UnsupportedError("values only")
    node = {
        "op_type": names[case.product],
        "kernel_shape": [case.window] * 2,
        "strides": [case.stride] * 2,
        "pads": [case.padding] * 4,
    }
    return node, _channels_first(case.x), {}


def _channels_first(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))


def _images(result: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(result, 1, -1))
