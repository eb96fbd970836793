"""Planning takes a moment, whatever the geometry: it counts phases before it makes them."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fastconv.engine import words as slots
from fastconv.engine.tables.lattice import backward_lattice
from fastconv.geometry.resolve import conv_geometry
from fastconv.plans.compiled import new_products
from fastconv.threads import num_threads

FAR = {
    "wide window": ((1, 6, 1200, 3), (5, 301, 3, 2), {}),
    "stride 64": ((1, 256, 256, 3), (64, 64, 3, 8), {"stride": 64}),
    "3-D, padded": ((1, 30, 30, 30, 2), (7, 7, 7, 2, 2), {"padding": 3}),
    "far padding": ((1, 9000, 2), (255, 2, 2), {"padding": 400}),
}


@pytest.mark.parametrize("name", FAR)
def test_tables_stay_small(name):
    """Every tap of every phase is a row of a table: some times T, not T squared."""
    x_shape, w_shape, options = FAR[name]
    g = conv_geometry(x_shape, w_shape, **options)
    plan = new_products(g, np.dtype("float32"))
    for product in ("forward", "input_grad"):
        rows = sum(len(phase.taps) for phase in plan.product(product).choice.lattice.phases)
        assert g.T <= rows <= 100 * g.T


def test_too_many_phases_are_not_made():
    g = conv_geometry((1, 6, 1200, 3), (5, 301, 3, 2))
    assert len(backward_lattice(g, (False, True, True)).phases) > 1000
    assert backward_lattice(g, (False, True, True), 100).phases == ()


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_threads_get_as_many_boxes(threads):
    """Eleven boxes of three images for two threads would leave one idle for an eleventh of it."""
    g = conv_geometry((32, 7, 7, 512), (3, 3, 512, 512), padding=1)
    with num_threads(threads):
        product = new_products(g, np.dtype("float32")).product("forward")
        table = product.prepared(False, threads=threads).table.words
    busiest = -(-table[slots.ITEMS] // threads) * table[slots.BOX]
    assert busiest <= {2: 16, 3: 12, 4: 9}[threads]


@pytest.mark.parametrize("first", [1, 2])
def test_boxes_are_cut_for_the_threads_of_each_call(first, monkeypatch):
    """A process that sets another number of threads later has the boxes of that number."""
    g = conv_geometry((32, 7, 7, 512), (3, 3, 512, 512), padding=1)
    product = new_products(g, np.dtype("float32")).product("forward")
    built = []
    build = product.build

    def recorded(threads, *key):
        built.append(threads)
        return build(threads, *key)

    monkeypatch.setattr(product, "build", recorded)
    x, w = np.zeros((32, 7, 7, 512), "float32"), np.zeros((3, 3, 512, 512), "float32")
    y = np.empty((32, 7, 7, 512), "float32")
    for threads in (first, 3 - first, first):
        with num_threads(threads):
            product.run(x, w, None, False, y)
    assert built == [first, 3 - first]


def test_threads_that_prepare_at_once_get_one_table(monkeypatch):
    """A program knows a table by its address: a second one in its place would free it."""
    g = conv_geometry((3, 6, 6, 2), (3, 3, 2, 4))
    product = new_products(g, np.dtype(np.float32)).product("kernel_grad")
    both, build = threading.Barrier(2, timeout=30), type(product).build

    def build_together(self, threads, *key):
        both.wait()
        return build(self, threads, *key)

    monkeypatch.setattr(type(product), "build", build_together)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: product.prepared(True, True), range(2))
    assert first is second
    assert product.prepared(True, True) is first
