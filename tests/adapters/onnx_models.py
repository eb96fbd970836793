"""One-node models, run by fastconv's operators, by ONNX's own, and by ONNX Runtime."""

import onnx
import onnxruntime
from onnx import helper
from onnx.reference import ReferenceEvaluator

from fastconv.adapters.onnx import OPS

onnxruntime.set_default_logger_severity(4)


def one_node(op, feeds, opset=22, outputs=1, **attributes):
    """The model of an operator whose inputs, in order, are `feeds` (None: left out)."""
    given = {name: array for name, array in feeds.items() if array is not None}
    names = [name if name in given else "" for name in feeds]
    results = [f"y{i}" for i in range(outputs)]
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in given.items()
    ]
    graph = helper.make_graph(
        [helper.make_node(op, names, results, **attributes)],
        "graph",
        inputs,
        [onnx.ValueInfoProto(name=name) for name in results],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model), given


def ours(op, feeds, **options):
    model, given = one_node(op, feeds, **options)
    return ReferenceEvaluator(model, new_ops=OPS).run(None, given)


def stock(op, feeds, **options):
    model, given = one_node(op, feeds, **options)
    return ReferenceEvaluator(model).run(None, given)


def runtime(op, feeds, **options):
    model, given = one_node(op, feeds, **options)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    text, provider = model.SerializeToString(), ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(text, settings, providers=provider).run(None, given)
