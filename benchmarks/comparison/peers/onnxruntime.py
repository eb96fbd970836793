"""ONNX Runtime: a model of one node, forward only, channels first as that is all it takes; or a
whole network as fastconv writes it.

The kernel is a constant of the model, so ONNX Runtime may reorder it before the first call.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from comparison.cases import Call, ConvCase, DeltaCase, PoolCase, UnsupportedError
from comparison.networks import AnyCase, NetworkCase

# Old enough for every release since 2022, new enough for float64 in pooling.
OPSET, IR_VERSION = 15, 8


class OnnxRuntime:
    """An inference engine."""

    def __init__(self) -> None:
        self._threads = 1

    @contextmanager
    def threads(self, n: int) -> Iterator[None]:
        """Sessions compute with n threads."""
        before, self._threads = self._threads, n
        try:
            yield
        finally:
            self._threads = before

    def prepare(self, case: AnyCase) -> Call:
        """How ONNX Runtime computes the case."""
        if isinstance(case, NetworkCase):
            return self._predict(case)
        if isinstance(case, DeltaCase):
            raise UnsupportedError("no gradients")
        node, x, constants = _conv(case) if isinstance(case, ConvCase) else _pool(case)
        session = self._one_node(node, x, constants)
        feed = {"x": x}
        return Call(lambda: session.run(["y"], feed)[0], _images)

    def _one_node(
        self, node: dict[str, Any], x: np.ndarray, constants: dict[str, np.ndarray]
    ) -> Any:
        helper = onnx.helper
        kind = helper.np_dtype_to_tensor_dtype(x.dtype)
        inputs = [helper.make_tensor_value_info("x", kind, x.shape)]
        outputs = [helper.make_tensor_value_info("y", kind, None)]
        weights = [onnx.numpy_helper.from_array(a, name) for name, a in constants.items()]
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
        try:
            return self._session(model.SerializeToString())
        except Exception as error:  # its exceptions share no other base class
            if "NOT_IMPLEMENTED" in str(error):
                raise UnsupportedError(f"not implemented for {x.dtype}") from error
            raise

    def _session(self, model: bytes) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        # Its threads wait for the next run with a busy loop, which would take a processor from
        # whoever has the next turn; within a run they go on doing so.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def _predict(self, case: NetworkCase) -> Call:
        """The file that `Sequential.to_onnx` writes: images channels last, the batch free."""
        if case.product != "predict":
            raise UnsupportedError("no training")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.onnx"
            case.network.model().to_onnx(path, input_shape=case.network.image)
            session = self._session(path.read_bytes())
        feeds = itertools.cycle([{"x": x} for x, _ in case.batches])
        return Call(lambda: session.run(["y"], next(feeds))[0], lambda z: z)


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
