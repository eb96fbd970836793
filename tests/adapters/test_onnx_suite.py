"""ONNX's own backend tests, and the nine whole networks that its suite leaves out as too slow."""

import warnings

import pytest
from onnx.backend.base import Backend, BackendRep
from onnx.reference import ReferenceEvaluator

from fastconv.adapters.onnx import OPS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # onnx makes its cases at import, casts that overflow and all
    from onnx.backend.test import BackendTest

    NETWORKS = (
        "bvlc_alexnet",
        "densenet121",
        "inception_v1",
        "inception_v2",
        "resnet50",
        "shufflenet",
        "squeezenet",
        "vgg19",
        "zfnet512",
    )

    class Evaluator(BackendRep):
        def __init__(self, model):
            self.evaluator = ReferenceEvaluator(model, new_ops=OPS)
            constants = {constant.name for constant in model.graph.initializer}
            self.names = [x.name for x in model.graph.input if x.name not in constants]

        def run(self, inputs, **options):
            return self.evaluator.run(None, dict(zip(self.names, inputs, strict=True)))

    class OnFastconv(Backend):
        @classmethod
        def supports_device(cls, device):
            return device == "CPU"

        @classmethod
        def prepare(cls, model, device="CPU", **options):
            return Evaluator(model)

    suite = BackendTest(OnFastconv, __name__)
    suite.include("(?i)(conv|pool|col2im|batchnorm)")
    suite.include(f"^test_({'|'.join(NETWORKS)})_cpu$")
    for another in ("_cuda", "causal", "convert"):  # CausalConvWithState, strings "converted"
        suite.exclude(another)


def chosen():
    """Test cases by category, without the thousands that are skipped because nothing named them."""
    cases = suite.test_cases
    for case in cases.values():
        for name in [name for name in vars(case) if name.startswith("test_")]:
            if getattr(getattr(case, name), "__unittest_skip__", False):
                delattr(case, name)
    return cases


CASES = chosen()
globals().update(CASES)


@pytest.fixture(autouse=True, scope="module")
def _folder_of_onnx(tmp_path_factory):
    """Where the suite writes the inputs and outputs of the networks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONNX_HOME", str(tmp_path_factory.mktemp("onnx")))
        yield


def test_nothing_is_left_out():
    count = {
        category: sum(name.startswith("test_") for name in vars(case))
        for category, case in CASES.items()
    }
    assert count["OnnxBackendRealModelTest"] == len(NETWORKS)
    assert sum(count.values()) - len(NETWORKS) >= 137
