"""Dask's arrays: the bits of the whole array, lazily, whatever the chunks."""

from __future__ import annotations

import re

import dask
import dask.array as da
import numpy as np
import pytest
from dask.base import tokenize

import fastconv as fc
from fastconv import nn
from fastconv.adapters import dask as adapter
from fastconv.adapters.shared.operations import shared_threads, tasks_at_once

RNG = np.random.default_rng(0)


def images(*shape, dtype="float32"):
    return RNG.normal(size=shape).astype(dtype)


def unet():
    """A network with all that moves pixels: strides, a shortcut, a way around at half the size."""
    down = nn.Sequential(
        nn.MaxPool(2), nn.Conv(4, 6, 3, padding="same", activation="relu", rng=1), nn.Upsample(2)
    )
    return nn.Sequential(
        nn.Conv(2, 4, 3, padding="same", rng=0),
        nn.BatchNorm(4),
        nn.ReLU(),
        nn.Concat(nn.Identity(), down),
        nn.Residual(nn.Conv(10, 10, 5, padding="same", rng=2)),
        nn.ConvTranspose(10, 3, 2, stride=2, rng=3),
    )


def same(lazy, whole):
    """Bits, declared shape, chunks and dtype are those of the whole, and nothing ran before."""
    assert isinstance(lazy, da.Array)
    assert lazy.shape == whole.shape
    assert lazy.dtype == whole.dtype
    assert isinstance(lazy._meta, np.ndarray)
    assert lazy._meta.shape == (0,) * whole.ndim
    found = lazy.compute()
    assert found.dtype == whole.dtype
    assert np.array_equal(found, whole)
    places = list(np.ndindex(*lazy.numblocks))
    blocks = dask.compute(*(lazy.to_delayed()[place] for place in places))
    for place, block in zip(places, blocks, strict=True):
        assert block.shape == tuple(c[i] for c, i in zip(lazy.chunks, place, strict=True))


CHUNKS = [(4, 20, 17, 2), (1, 20, 17, 2), (3, 7, 17, 2), (4, 5, 6, 2), (2, (1, 12, 7), (8, 9), 2)]
CONVS = [
    {},
    {"padding": "same", "stride": 2},
    {"padding": "full", "dilation": 2, "activation": "relu"},
    {"padding": ((3, 0), (1, 4)), "stride": (3, 1)},
    {"padding": 2, "padding_mode": "reflect"},
    {"padding": ((0, 2), (1, 0)), "padding_mode": "symmetric", "stride": 2},
]


@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
@pytest.mark.parametrize("options", CONVS, ids=str)
def test_conv(chunks, options):
    x, w, b = images(4, 20, 17, 2), images(3, 3, 2, 5), images(5)
    same(adapter.conv(da.from_array(x, chunks), w, b, **options), fc.conv(x, w, b, **options))


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_channels_first_and_other_dtypes(dtype):
    x, w = images(3, 2, 20, 17, dtype=dtype), images(3, 3, 1, 4, dtype=dtype)
    options = {"padding": "same", "groups": 2, "data_format": "channels_first"}
    lazy = adapter.conv(da.from_array(x, (2, 2, 6, 5)), w, **options)
    same(lazy, fc.conv(x, w, **options))
    pooled = adapter.max_pool(lazy, 3, stride=2, data_format="channels_first")
    whole = fc.conv(x, w, **options)
    same(pooled, fc.max_pool(whole, 3, stride=2, data_format="channels_first"))


def test_one_and_three_axes():
    x, w = images(2, 50, 3), images(5, 3, 4)
    same(adapter.conv(da.from_array(x, (1, 16, 3)), w, stride=2), fc.conv(x, w, stride=2))
    x, w = images(2, 9, 8, 10, 3), images(3, 2, 3, 3, 4)
    lazy = adapter.conv(da.from_array(x, (1, 4, 3, 5, 3)), w, padding=1)
    same(lazy, fc.conv(x, w, padding=1))


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
def test_pools(chunks, ceil_mode):
    x = images(4, 20, 17, 2)
    lazy = da.from_array(x, chunks)
    for options in ({}, {"stride": 1}, {"stride": (2, 3), "padding": 1}):
        named = {**options, "ceil_mode": ceil_mode}
        same(adapter.max_pool(lazy, 3, **named), fc.max_pool(x, 3, **named))
        for include in (False, True):
            named["count_include_pad"] = include
            same(adapter.avg_pool(lazy, 3, **named), fc.avg_pool(x, 3, **named))


def test_integers_are_pooled():
    x = RNG.integers(0, 255, (2, 9, 9, 3)).astype("uint8")
    same(adapter.max_pool(da.from_array(x, (1, 4, 4, 3)), 2), fc.max_pool(x, 2))


@pytest.mark.parametrize("chunks", [*CHUNKS, (2, 3, 3, 2)], ids=str)
def test_a_network_in_chunks_of_images(chunks):
    network, x = unet(), images(4, 20, 18, 2)
    chunks = tuple(18 if n == 17 else n for n in chunks[:-1]) + (2,)
    chunks = tuple((8, 10) if n == (8, 9) else n for n in chunks)
    same(adapter.predict(network, da.from_array(x, chunks)), network.predict(x))


def test_small_chunks_are_joined_and_large_ones_stay():
    x = da.zeros((1, 100, 100, 1), chunks=(1, (50, 2, 48), 25, 1), dtype="float32")
    y = adapter.conv(x, images(9, 1, 1, 1), padding="same")
    assert y.chunks[1:3] == ((50, 50), (25,) * 4)


def test_whole_images_may_go_through_any_layer():
    network = nn.Sequential(nn.Conv(2, 3, 3, rng=0), nn.Flatten(), nn.Dense(18, 4, rng=0))
    x = images(7, 5, 4, 2)
    lazy = adapter.predict(network, da.from_array(x, (3, 5, 4, 2)), batch_size=2)
    assert lazy.chunks == ((3, 3, 1), (4,))
    same(lazy, network.predict(x))


def test_bytes_are_scaled():
    network = unet()
    x = RNG.integers(0, 255, (2, 12, 12, 2)).astype("uint8")
    lazy = adapter.predict(network, da.from_array(x, (1, 5, 12, 2)), scale=1 / 255)
    same(lazy, network.predict(x, scale=1 / 255))


def test_empty_batches():
    network, x = unet(), images(4, 20, 18, 2)
    for chunks in ((2, 20, 18, 2), (2, 9, 9, 2)):
        lazy = adapter.predict(network, da.from_array(x, chunks)[:0])
        assert lazy.compute().shape == (0, 40, 36, 3)
    assert adapter.max_pool(da.from_array(x, (2, 9, 9, 2))[:0], 2).compute().shape == (0, 10, 9, 2)


def test_a_chunk_reads_its_neighbours_and_no_more():
    """Of 100 chunks, the first result needs four at most."""
    read = []

    def block(block_id):
        read.append(block_id)
        return np.zeros((1, 10, 10, 2), "float32")

    x = da.map_blocks(block, chunks=((1,), (10,) * 10, (10,) * 10, (2,)), dtype="float32")
    read.clear()  # what dask asked for the meta
    y = adapter.predict(unet(), x)
    assert not read
    y.blocks[0, 0, 0, 0].compute()
    assert sorted(set(read)) == [(0, 0, 0, 0), (0, 0, 1, 0), (0, 1, 0, 0), (0, 1, 1, 0)]


def test_fast_convolutions_agree_to_rounding():
    x, w = images(1, 64, 64, 16), images(3, 3, 16, 16)
    with fc.algorithm("fast"):
        lazy = adapter.conv(da.from_array(x, (1, 32, 32, 16)), w)
    assert np.allclose(lazy.compute(), fc.conv(x, w), rtol=1e-3, atol=1e-3)


# Graphs -----------------------------------------------------------------------------------------


def test_tokens_tell_models_apart():
    network = unet()
    token = tokenize(network)
    assert tokenize(network) == token == tokenize(unet())
    network.eval()
    network.predict(images(1, 8, 8, 2))  # what a pass leaves behind is no part of it
    network.forward(images(1, 8, 8, 2))
    assert tokenize(network) == token
    network[1].running_mean[0] = 3
    assert tokenize(network) != token
    assert tokenize(network[:2]) != tokenize(network[:3])


def test_names_of_results_depend_on_all_that_matters():
    x, w = da.zeros((4, 8, 8, 1), chunks=2, dtype="float32").rechunk({3: 1}), images(3, 3, 1, 2)
    names = {
        adapter.conv(x, w).name,
        adapter.conv(x, 2 * w).name,
        adapter.conv(x, w, padding=1).name,
        adapter.conv(x + 1, w).name,
        adapter.max_pool(x, 2).name,
        adapter.avg_pool(x, 2).name,
    }
    assert len(names) == 6
    assert adapter.conv(x, w.copy()).name in names


def test_a_graph_keeps_the_weights_of_its_making():
    network, x = unet(), images(1, 12, 12, 2)
    y = network.predict(x)
    for chunks in ((1, 12, 12, 2), (1, 6, 6, 2)):
        lazy = adapter.predict(network, da.from_array(x, chunks))
        before = network[0].w.value.copy()
        network[0].w.value[...] = 0
        assert np.array_equal(lazy.compute(), y)
        network[0].w.value[...] = before
    w = images(3, 3, 2, 2)
    lazy, whole = adapter.conv(da.from_array(x, (1, 6, 6, 2)), w), fc.conv(x, w)
    w[...] = 0
    assert np.array_equal(lazy.compute(), whole)


def test_the_model_is_in_the_graph_once():
    lazy = adapter.predict(unet(), da.zeros((1, 40, 40, 2), chunks=(1, 10, 10, 2), dtype="f4"))
    assert sum("fastconv-operation" in str(key) for key in dict(lazy.__dask_graph__())) == 1


# Threads ----------------------------------------------------------------------------------------


def counted(block):
    with shared_threads():
        return np.full(block.shape, fc.get_num_threads())


@pytest.mark.parametrize(("processors", "workers", "each"), [(8, 4, 2), (8, 3, 2), (2, 4, 1)])
def test_tasks_share_the_processors(processors, workers, each):
    x = da.zeros(8, chunks=1)
    with dask.config.set(scheduler="threads", num_workers=workers):
        fc.set_num_threads(processors)
        try:
            found = x.map_blocks(counted, dtype=int, meta=np.empty(0, int)).compute()
        finally:
            fc.threads._default = None
    assert set(found.tolist()) == {each}


def test_a_scheduler_without_threads_leaves_all():
    assert tasks_at_once() == 1
    x = da.zeros(2, chunks=1).map_blocks(counted, dtype=int, meta=np.empty(0, int))
    assert set(x.compute(scheduler="synchronous").tolist()) == {fc.get_num_threads()}


# Errors -----------------------------------------------------------------------------------------

X = da.zeros((4, 8, 8, 3), chunks=(2, 4, 4, 3), dtype="float32")
W = np.zeros((3, 3, 3, 2), "float32")
POOLED = nn.Sequential(nn.Conv(3, 2, 3), nn.GlobalAvgPool())
UNKNOWN = X[X[:, 0, 0, 0] > 0]


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: adapter.conv(X.rechunk({3: 1}), W), ValueError, r"^x: .*x.rechunk\({3: -1}\)"),
        (lambda: adapter.conv(np.zeros(X.shape, "f4"), W), TypeError, "^x: a dask array is needed"),
        (lambda: adapter.conv(X, da.asarray(W)), TypeError, "^w is of dask"),
        (lambda: adapter.conv(X, W, padding="SAME"), ValueError, "^padding: 'SAME'"),
        (lambda: adapter.conv(X, W.astype("f8")), TypeError, "dtype"),
        (lambda: adapter.conv(X.astype(int), W), TypeError, "^x has dtype int64"),
        (lambda: adapter.conv(X, W, padding=1, padding_mode="wrap"), ValueError, "^padding_mode"),
        (lambda: adapter.conv(UNKNOWN, W), ValueError, r"^x: .*compute_chunk_sizes"),
        (lambda: adapter.max_pool(X, 9), ValueError, "^window: 9"),
        (lambda: adapter.predict(POOLED, X), ValueError, r"^x: .*one chunk.* 1 \(GlobalAvgPool\)"),
        (lambda: adapter.predict(POOLED, X[..., :2].rechunk(8)), ValueError, r"layer 0 \(Conv\)"),
        (lambda: adapter.predict("a.npz", X), TypeError, "^model: a fastconv.nn model is needed"),
        (lambda: adapter.predict(POOLED, X, batch_size=0), ValueError, "^batch_size"),
        (lambda: adapter.predict(POOLED, X.astype("u1")), TypeError, "^x: .*scale="),
        (lambda: fc.conv(X, W), TypeError, "^x is of dask: .*fastconv.adapters.dask"),
        (lambda: POOLED.predict(X), TypeError, "^x: .*fastconv.adapters.dask"),
    ],
)
def test_errors_come_before_anything_is_computed(call, error, says):
    with pytest.raises(error, match=says) as found:
        call()
    assert re.search(r"\w", str(found.value))
    assert len(str(found.value)) < 500


# Workers ----------------------------------------------------------------------------------------


def test_incremental_training_by_dask_ml():
    from dask_ml.wrappers import Incremental

    from fastconv.sklearn import CNNClassifier

    x = images(60, 36)
    y = (x[:, :18].sum(axis=1) > 0).astype(int)
    model = CNNClassifier(filters=(4,), hidden=(), random_state=0, image_shape=(6, 6))
    model = Incremental(model, shuffle_blocks=False)
    model.fit(da.from_array(x, (20, 36)), da.from_array(y, 20), classes=[0, 1])
    alone = CNNClassifier(filters=(4,), hidden=(), random_state=0, image_shape=(6, 6))
    for start in (0, 20, 40):
        alone.partial_fit(x[start : start + 20], y[start : start + 20], classes=[0, 1])
    found = model.predict(da.from_array(x, (20, 36)))
    assert np.array_equal(np.asarray(found), alone.predict(x))
