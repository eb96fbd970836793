"""Parts of an image through a network: the same bits as in the whole image."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from fastconv import nn, reference
from fastconv.geometry.parts import Part
from fastconv.nn.tiles import Tiling

MODES = ("constant", "reflect", "symmetric", "edge")
PIXELWISE = (nn.ReLU, nn.Sigmoid, nn.Tanh, nn.GELU, nn.SiLU, nn.ELU, nn.Softplus, nn.LeakyReLU,
             nn.Hardswish, nn.Identity)  # fmt: skip


def numbers(rng, least, most, count):
    return tuple(int(n) for n in rng.integers(least, most + 1, count))


def pairs(rng, most):
    return tuple(numbers(rng, 0, n, 2) for n in most)


def drawn_layer(rng, C, rank):
    """A layer on images of C channels, and the channels that it gives."""
    window, stride, dilation = (numbers(rng, 1, most, rank) for most in (4, 3, 2))
    F = int(rng.integers(1, 6))
    half = pairs(rng, [n // 2 for n in window])
    three = (3,) * rank
    kind = int(rng.integers(0, 12))
    if kind <= 2:
        mode = str(rng.choice(MODES))
        named = ["same", "valid", "full", pairs(rng, (3,) * rank)]
        padding = named[rng.integers(4)] if mode == "constant" else pairs(rng, (2,) * rank)
        activation = [None, "relu"][rng.integers(2)]
        steps = {"stride": stride, "padding": padding, "dilation": dilation}
        return nn.Conv(C, F, window, **steps, padding_mode=mode, activation=activation, rng=rng), F
    if kind == 3:
        return nn.MaxPool(window, stride=stride, padding=half, ceil_mode=bool(rng.integers(2))), C
    if kind == 4:
        ceil, include = (bool(n) for n in rng.integers(0, 2, 2))
        steps = {"stride": stride, "padding": half, "ceil_mode": ceil}
        return nn.AvgPool(window, **steps, count_include_pad=include), C
    if kind == 5:
        padding = ("valid", "same")[rng.integers(2)]
        steps = {"stride": stride, "dilation": dilation, "padding": padding}
        return nn.ConvTranspose(C, F, window, **steps, rng=rng), F
    if kind == 6:
        mode = ("nearest", "bilinear")[rng.integers(2)]
        return nn.Upsample(numbers(rng, 1, 3, rank), mode=mode), C
    if kind == 7 and C % 2**rank == 0:
        return nn.PixelShuffle(2), C // 2**rank
    if kind == 8:
        return nn.Pad(pairs(rng, (2,) * rank), mode=str(rng.choice(MODES))), C
    if kind == 9:
        body = nn.Sequential(
            nn.Conv(C, F, three, stride=stride, padding="same", rng=rng), nn.BatchNorm(F), nn.ReLU()
        )
        return nn.Residual(body, nn.Conv(C, F, (1,) * rank, stride=stride, rng=rng)), F
    if kind == 10:
        conv = nn.Conv(C, F, three, padding="same", rng=rng)
        deep = nn.Sequential(nn.Conv(C, 2, (5,) * rank, padding="same", rng=rng), nn.LeakyReLU())
        return nn.Concat(nn.Identity(), conv, nn.Residual(nn.Identity()), deep), 2 * C + F + 2
    if rng.integers(2):
        norm = nn.BatchNorm(C)
        norm.running_mean, norm.scale = (rng.normal(size=C).astype("float32") for _ in range(2))
        return norm, C
    return PIXELWISE[rng.integers(len(PIXELWISE))](), C


def drawn(seed):
    """A network that takes the drawn images, and these."""
    rng = np.random.default_rng(seed)
    while True:
        rank = int(rng.choice([1, 2, 2, 2, 3]))
        C = int(rng.integers(1, 5))
        x = rng.normal(size=(2, *numbers(rng, 5, 10 if rank == 3 else 30, rank), C))
        layers = []
        for _ in range(rng.integers(1, 6)):
            layer, C = drawn_layer(rng, C, rank)
            layers.append(layer)
        network = nn.Sequential(*layers)
        x = x.astype("float32")
        try:
            return rng, network, x, network.predict(x)
        except ValueError:  # a window larger than its image
            continue


@pytest.mark.parametrize("seed", range(60))
def test_parts_have_the_bits_of_the_whole(seed):
    rng, network, x, y = drawn(seed)
    tiling = Tiling(network, x.shape[1:])
    assert (tiling.y_shape, tiling.dtype) == (y.shape[1:], y.dtype)
    for _ in range(3):
        starts = [int(rng.integers(0, n)) for n in y.shape[1:-1]]
        wanted = tuple(
            Part(a, int(rng.integers(a + 1, n + 1)))
            for a, n in zip(starts, y.shape[1:-1], strict=True)
        )
        read = tiling.read(wanted)
        part = tiling.run(x[:, *(slice(*p) for p in read)].copy(), wanted)
        assert np.array_equal(part, y[:, *(slice(*p) for p in wanted)])


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 1600))
def test_more_parts(seed):
    test_parts_have_the_bits_of_the_whole(seed)


def test_naive_loops_agree():
    """Small integers are exact: the same part on the naive loops."""
    rng = np.random.default_rng(0)
    network = nn.Sequential(
        nn.Conv(2, 3, 3, stride=2, padding="same", rng=0), nn.ReLU(), nn.MaxPool(2, ceil_mode=True)
    )
    network[0].w = rng.integers(-3, 4, network[0].w.shape).astype("float32")
    x = rng.integers(-4, 5, (1, 13, 11, 2)).astype("float32")
    wanted = (Part(1, 4), Part(0, 2))
    parts = []
    for ops in (None, reference):
        if ops is not None:
            network.ops = ops
        tiling = Tiling(network, x.shape[1:])
        read = tiling.read(wanted)
        parts.append(tiling.run(x[:, *(slice(*p) for p in read)].copy(), wanted))
    assert np.array_equal(*parts)
    assert np.array_equal(parts[0], network.predict(x)[:, 1:4, 0:2])


def test_windows_that_lie_in_the_padding_alone():
    network = nn.Sequential(nn.Conv(1, 1, 2, stride=3, padding=((7, 8), (0, 5)), rng=0))
    x = np.random.default_rng(0).normal(size=(1, 6, 6, 1)).astype("float32")
    y, tiling = network.predict(x), Tiling(network, x.shape[1:])
    for i in range(y.shape[1]):
        for j in range(y.shape[2]):
            wanted = (Part(i, i + 1), Part(j, j + 1))
            part = tiling.run(x[:, *(slice(*p) for p in tiling.read(wanted))].copy(), wanted)
            assert np.array_equal(part, y[:, i : i + 1, j : j + 1])


def test_no_more_is_read_than_the_receptive_field():
    network = nn.Sequential(
        nn.Conv(1, 2, 3, padding=1, rng=0), nn.MaxPool(2), nn.Conv(2, 1, 5, padding=2, rng=0)
    )
    tiling = Tiling(network, (1000, 1000, 1))
    # 5 pooled pixels are 10, and the first convolution sees one more on each side
    assert tiling.read((Part(100, 101), Part(0, 1))) == (Part(195, 207), Part(0, 7))


def test_in_another_process_it_is_the_same():
    """Its layers are other objects there."""
    model = nn.Sequential(nn.Conv(1, 2, 3, padding="same", rng=0), nn.MaxPool(2))
    tiling = pickle.loads(pickle.dumps(Tiling(model, (8, 8, 1))))
    x = np.arange(64, dtype=np.float32).reshape(1, 8, 8, 1)
    wanted = (Part(1, 3), Part(0, 2))
    part = tiling.run(x[:, *(slice(p.start, p.stop) for p in tiling.read(wanted))], wanted)
    assert np.array_equal(part, model.predict(x)[:, 1:3, 0:2])


def test_the_weights_are_those_of_then():
    network = nn.Sequential(nn.Conv(1, 1, 3, rng=0))
    names = [p.name for p in network.parameters()]
    x = np.ones((1, 8, 8, 1), "float32")
    y, tiling = network.predict(x), Tiling(network, (8, 8, 1))
    network[0].w.value[...] = 0
    wanted = (Part(0, 6), Part(0, 6))
    assert np.array_equal(tiling.run(x, wanted), y)
    assert [p.name for p in network.parameters()] == names


class Blur(nn.Layer):
    def forward(self, x):
        return x - x.mean(axis=1, keepdims=True)


class Doubled(nn.ReLU):
    """It has a pass of its own: what ReLU says of itself does not count."""

    def forward(self, x):
        return 2 * x.max() + x


@pytest.mark.parametrize(
    "layer",
    [nn.GroupNorm(1, 2), nn.InstanceNorm(2), nn.AdaptiveAvgPool(2), Blur(), Doubled(),
     nn.Residual(nn.Sequential(nn.ReLU(), nn.GroupNorm(1, 2)))],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_what_mixes_all_of_an_image_is_refused_by_name(layer):
    network = nn.Sequential(nn.Conv(1, 2, 3, rng=0), layer)
    with pytest.raises(ValueError, match=r"^x: .*takes all of an image.*, in layer 1") as error:
        Tiling(network, (8, 8, 1))
    assert len(str(error.value)) < 300


def test_a_layer_of_ones_own_can_say_that_it_is_pixelwise():
    @nn.register(pixelwise=True)
    class HalvedPixels(nn.Layer):
        def forward(self, x):
            return x / 2

    network = nn.Sequential(HalvedPixels(), nn.MaxPool(2))
    x = np.arange(36, dtype="float32").reshape(1, 6, 6, 1)
    tiling = Tiling(network, (6, 6, 1))
    part = tiling.run(x[:, 2:4, 0:4].copy(), (Part(1, 2), Part(0, 2)))
    assert np.array_equal(part, network.predict(x)[:, 1:2, 0:2])


def test_wrap_is_refused():
    for layer in (nn.Conv(1, 1, 3, padding=1, padding_mode="wrap"), nn.Pad(1, mode="wrap")):
        with pytest.raises(ValueError, match=r"'wrap' joins the ends"):
            Tiling(nn.Sequential(layer), (8, 8, 1))


def test_images_that_do_not_fit_are_refused_at_once():
    network = nn.Sequential(nn.Conv(3, 1, 3))
    with pytest.raises(ValueError, match=r"in layer 0 \(Conv\)"):
        Tiling(network, (8, 8, 1))
