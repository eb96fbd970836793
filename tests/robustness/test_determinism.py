"""The same bits, however they are computed: digests over every public function.

Threads, threading layers, memory layouts, slices of a batch, runs, a cold and a warm cache, parent
and child.
"""

import numpy as np
import pytest
import work

import fastconv as fc

LAYERS = ["tbb", "omp", "workqueue"]


def everything(x, w):
    """Every public function, on a few geometries: results of the shape ``(m, ...)``, and sums."""
    x = x[:, :13, :11]
    images, sums = [], []
    for C, F, options in [
        (16, 16, {"padding": 1}),
        (3, 7, {"stride": 2, "padding": "same"}),
        (8, 4, {"groups": 2, "dilation": 2}),
        (16, 16, {"groups": 16, "padding": ((0, 2), (1, 1))}),
        (1, 1, {}),
    ]:
        images_in, kernel = x[..., :C], w[:, :, : C // options.get("groups", 1), :F]
        bias = np.linspace(-1, 1, F).astype("float32")
        y = fc.conv(images_in, kernel, bias, activation="relu", **options)
        dx, dw, db = fc.conv_backward(y, images_in, kernel, **options)
        images += [y, dx, fc.conv_input_grad(y, kernel, images_in.shape, **options)]
        sums += [dw, db, fc.conv_kernel_grad(images_in, y, kernel.shape, **options)]
        if options.get("padding") != "same":
            turned = fc.conv_transpose(y, kernel, **options)
            dy, dw, _ = fc.conv_transpose_backward(turned, y, kernel, **options)
            images, sums = [*images, turned, dy], [*sums, dw]
    wide, kernel = np.concatenate([x] * 4, -1), np.tile(w, (1, 1, 4, 4))
    large = np.repeat(np.repeat(x[..., :1], 24, 1), 24, 2)  # through transforms
    window = np.resize(w, (61, 61, 1, 1))
    with fc.algorithm("fast"):
        images += [fc.conv(wide, kernel, padding=1), fc.conv(large, window)]
        images += [fc.conv_input_grad(wide, kernel, wide.shape, padding=1)]
    best, argmax = fc.max_pool(x, 3, stride=2, padding=1, return_argmax=True)
    mean = fc.avg_pool(x, 3, stride=2, padding=1)
    back = {"stride": 2, "padding": 1}
    images += [best, argmax, fc.max_pool_backward(best, argmax, x.shape, 3, **back)]
    images += [mean, fc.avg_pool_backward(mean, x.shape, 3, **back), fc.relu_backward(x, x)]
    cols = fc.im2col(x, 3)
    images += [cols, fc.col2im(cols, x.shape, 3)]
    return images, sums


def digest(change=lambda a: a):
    images, sums = everything(*map(change, work.operands(m=8)))
    return work.digest_of([*images, *sums])


@pytest.fixture(scope="module")
def expected():
    with fc.num_threads(1):
        return digest(), work.digest()


def test_fast_takes_other_ways_here():
    """Else the digests below would say nothing about them."""
    wide = fc.plan_conv((1, 13, 11, 64), (3, 3, 64, 64), padding=1, algorithm="fast")
    for name in ("forward", "input_grad"):
        assert type(wide._products.product(name)).__name__ == "MinimalConvolution"
    large = fc.plan_conv((1, 312, 264, 1), (61, 61, 1, 1), algorithm="fast")
    assert large._products.transformed("forward")


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_threads(expected, threads):
    with fc.num_threads(threads):
        assert (digest(), work.digest()) == expected


CODE = """
import os, sys
import fastconv as fc, work, test_determinism as t
print(t.digest(), work.digest(), flush=True)
if hasattr(os, "fork"):
    child = os.fork()
    if child == 0:
        print(t.digest(), work.digest(), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.mark.parametrize(("layer", "threads"), [("tbb", 2), ("omp", 3), ("workqueue", 2)])
def test_layers_runs_and_children(python, expected, layer, threads):
    out, _ = python(CODE, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS=threads,
                    FASTCONV_NUM_THREADS=threads)  # fmt: skip
    for line in out.splitlines():
        assert tuple(line.split()) == expected


@pytest.mark.soak
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_every_layer_with_every_number_of_threads(python, expected, layer, threads):
    out, _ = python(CODE, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS=threads,
                    FASTCONV_NUM_THREADS=threads)  # fmt: skip
    for line in out.splitlines():
        assert tuple(line.split()) == expected


@pytest.mark.soak
def test_cold_cache(python, expected, tmp_path):
    out = [python(CODE, deadline=300, FASTCONV_CACHE_DIR=tmp_path)[0] for _ in range(2)]
    assert out[0] == out[1]
    assert tuple(out[0].splitlines()[0].split()) == expected


def test_a_kernel_from_disk_has_the_bits_of_one_just_compiled(python, tmp_path):
    """One kernel with real sums, so that it takes seconds; `test_cold_cache` takes all."""
    code = """
import work, fastconv as fc
print(work.digest_of([fc.avg_pool(work.operands(m=2)[0], 3)]))
"""
    cold, warm = (python(code, FASTCONV_CACHE_DIR=tmp_path)[0] for _ in range(2))
    assert cold == warm


@pytest.mark.parametrize(("first", "last"), [(0, 1), (3, 4), (2, 7)])
def test_slices_of_a_batch(first, last):
    x, w = work.operands(m=8)
    for whole, part in zip(everything(x, w)[0], everything(x[first:last], w)[0], strict=True):
        np.testing.assert_array_equal(part, whole[first:last])


LAYOUTS = {
    "Fortran": np.asfortranarray,
    "strided": lambda a: np.repeat(a, 2, -1)[..., ::2],
    "reversed": lambda a: np.ascontiguousarray(a[::-1, :, ::-1])[::-1, :, ::-1],
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    "unaligned": lambda a: (
        np.frombuffer(b"\0" + a.tobytes(), np.uint8)[1:].view(a.dtype).reshape(a.shape)
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(expected, layout):
    assert digest(LAYOUTS[layout]) == expected[0]
    x, w = work.operands()
    assert work.digest_of(work.results(LAYOUTS[layout](x), w)) == expected[1]
