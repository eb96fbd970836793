"""The control loops with a micro-kernel that records what it is asked to do, and does nothing."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from fastconv.engine import words as s
from fastconv.geometry.resolve import conv_geometry
from fastconv.plans.compiled import new_products
from fastconv.threads import num_threads

F4 = np.dtype("float32")


class Recorder:
    """Stands in for a sweep; keeps (addresses of the rows, columns, k, accumulate, relu)."""

    def __init__(self):
        self.tasks = []
        self.callback = ctypes.CFUNCTYPE(None, ctypes.c_int64)(self.record)
        self.address = ctypes.cast(self.callback, ctypes.c_void_p).value

    def record(self, task):
        words = list((ctypes.c_int64 * s.TASK_WORDS).from_address(task))
        rows = words[s.TASK_ROWS]
        c, c_row, cols = words[s.TASK_RESULT : s.TASK_RESULT + 3]
        offsets = np.array((ctypes.c_int64 * rows).from_address(c_row))
        _, accumulate, relu = words[s.TASK_ENDING : s.TASK_ENDING + 3]
        self.tasks.append((c + offsets, cols, words[s.TASK_K], accumulate, relu))


GEOMETRIES = [
    conv_geometry((3, 7, 9, 5), (3, 2, 5, 48)),
    conv_geometry((3, 7, 9, 5), (3, 2, 5, 20)),
    conv_geometry((3, 7, 9, 60), (3, 3, 60, 18), padding=1),  # a sum of two blocks
    conv_geometry((2, 9, 9, 8), (3, 3, 4, 6), padding=1, stride=2, groups=2),
    conv_geometry((2, 9, 9, 24), (3, 3, 1, 24), padding=1, groups=24),
    conv_geometry((1, 40, 3000, 8), (1, 3, 8, 17)),
]


@pytest.mark.parametrize("g", GEOMETRIES, ids=str)
def test_every_result_is_computed_once_and_relu_comes_last(g):
    plan, recorder = new_products(g, F4), Recorder()
    x, w, y = (np.ones(shape, F4) for shape in (g.x_shape, g.w_shape, g.y_shape))
    product = plan.product("forward")
    product.sweep = recorder.address
    with num_threads(1):
        plan.forward(x, w, None, True, y)
    started, finished = np.zeros(y.size, int), np.zeros(y.size, int)
    for rows, cols, _, accumulate, relu in recorder.tasks:
        element = ((rows - y.ctypes.data) // 4)[:, None] + np.arange(cols)
        assert element.min() >= 0
        assert not (finished[element] & (started[element] == 0)).any()
        started[element] += accumulate == 0
        finished[element] += relu
    np.testing.assert_array_equal(started, 1)
    np.testing.assert_array_equal(finished, 1)


@pytest.mark.parametrize("g", GEOMETRIES, ids=str)
def test_multiplications_of_the_three_products_agree(g):
    """Taps in the padding may be skipped or not; without padding the number is P*K*F/G."""
    plan = new_products(g, F4)
    x, w, y = (np.ones(shape, F4) for shape in (g.x_shape, g.w_shape, g.y_shape))
    counts = []
    for name in ("forward", "kernel_grad"):
        recorder = Recorder()
        plan.product(name).sweep = recorder.address
        with num_threads(1):
            if name == "forward":
                plan.forward(x, w, None, False, y)
            else:
                plan.kernel_grad(x, y, w)
        tile = plan.product(name).choice.tile
        made = sum(len(r) * k * min(cols, tile.columns) for r, cols, k, *_ in recorder.tasks)
        counts.append(made * tile.every)
    everything = g.P * g.T * g.C * g.F // g.G
    if not any(map(any, g.pads)) and g.F % plan.product("kernel_grad").choice.tile.columns == 0:
        assert counts == [everything, everything]
    assert 0.5 * everything <= counts[0] <= everything
    assert counts[1] >= counts[0]
