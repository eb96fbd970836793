"""What follows a convolution at once: bit for bit what the layers give in turn."""

import copy
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import compare_steps, labels, same_bits

import fastconv as fc
from fastconv import nn
from fastconv.engine.tables.boxes import choose_box
from fastconv.engine.tables.kernel_grad import kernel_choice
from fastconv.engine.tables.lattice import Lattice, Phase
from fastconv.engine.tables.tiles import cpu_lanes, narrow_lanes
from fastconv.geometry.resolve import conv_geometry
from fastconv.plans.compiled import finished, finished_choice, products

# the first networks that are drawn may compile kernels, to learn shapes
COLD = {"suppress_health_check": [HealthCheck.too_slow], "deadline": None}
SPECIAL = [np.nan, -np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-40, 3e38]


def numbered(model):
    """The model with biases, scales and statistics that are neither 0 nor 1."""
    for i, parameter in enumerate(model.parameters()):
        if parameter.value.ndim == 1:
            parameter.value += np.linspace(-0.7, 0.4 + i, parameter.size).astype(parameter.dtype)
    for i, buffer in enumerate(model.named_buffers().values()):
        buffer += np.linspace(0.1, 0.9 + i, buffer.size).astype(buffer.dtype)
    return model


def images(shape, dtype, special, seed=0):
    """A batch; some of its numbers may be special ones."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape).astype(dtype)
    places = rng.integers(0, x.size, special)
    x.reshape(-1)[places] = np.resize(np.array(SPECIAL), special).astype(dtype)
    return x


@st.composite
def followed(draw):
    """A convolution and layers behind it, alone or as the body of a residual; and a batch."""
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    rank = draw(st.sampled_from([2, 2, 2, 1]))
    sizes = tuple(draw(st.integers(2, 13)) for _ in range(rank))
    C = draw(st.sampled_from([1, 2, 3, 8]))
    groups = draw(st.sampled_from([g for g in (1, 2, 3, 8) if C % g == 0]))
    F = draw(st.sampled_from([C, groups, *(groups * n for n in (1, 2, 3, 5, 8, 9, 17, 33))]))
    window = tuple(draw(st.integers(1, min(3, n))) for n in sizes)
    conv = nn.Conv(
        C, F, window, stride=draw(st.sampled_from([1, 1, 2])), groups=groups,
        padding=draw(st.sampled_from([0, "same", 1])), bias=draw(st.booleans()),
        activation=draw(st.sampled_from([None, None, "relu"])), rng=1, dtype=dtype,
    )  # fmt: skip
    layers = [conv]
    for kind in ("norm", "relu", "pool", "norm", "relu"):
        if draw(st.booleans()):
            norm = nn.BatchNorm(F, dtype=dtype, epsilon=draw(st.sampled_from([1e-5, 0.1])))
            layers.append({"norm": norm, "relu": nn.ReLU(), "pool": nn.MaxPool(2)}[kind])
    model = nn.Sequential(*layers)
    shape = (draw(st.sampled_from([1, 2, 3, 7, 40])), *sizes, C)
    after = nn.Sequential(*(layer for layer in layers if not isinstance(layer, nn.MaxPool)))
    try:
        same = model.infer(np.zeros((1, *shape[1:]), dtype)).shape[1:] == shape[1:]
    except ValueError:  # an image too small to be pooled
        model = after
        same = model.infer(np.zeros((1, *shape[1:]), dtype)).shape[1:] == shape[1:]
    if draw(st.booleans()):
        model = nn.Residual(model) if same else nn.Residual(model, copy_of(model))
        model = nn.Sequential(model, *(nn.ReLU(),) * draw(st.integers(0, 1)))
    return numbered(model), images(shape, dtype, draw(st.sampled_from([0, 3, 40])))


def copy_of(model):
    """The same layers with other weights."""
    twin = nn.Sequential.from_config(model.config())
    for i, (p, q) in enumerate(zip(twin.parameters(), model.parameters(), strict=True)):
        p.value[...] = q.value[::-1] * p.dtype.type(0.5 + i)
    return twin


def check_followed(model, x, threads):
    right = model.infer(x)
    with fc.num_threads(threads):
        run = model.plan_inference(x.shape)
        assert same_bits(run(x), right)
        assert same_bits(run(x), right), "again, with what is done once done"
        assert same_bits(run(x[:1]), right[:1])
        assert same_bits(model.predict(x), right)
    for parameter in model.parameters():
        parameter.value *= parameter.dtype.type(1.5)
    for buffer in model.named_buffers().values():
        buffer *= buffer.dtype.type(0.75)
    assert same_bits(run(x), right), "it keeps the weights of its making"
    run.refresh()
    assert same_bits(run(x), model.infer(x))


@settings(max_examples=60, **COLD)
@given(followed(), st.integers(1, 3))
def test_drawn_layers_behind_a_convolution(case, threads):
    check_followed(*case, threads)


@pytest.mark.soak
@settings(max_examples=3000, **COLD)
@given(followed(), st.integers(1, 3))
def test_many_drawn_layers_behind_a_convolution(case, threads):
    check_followed(*case, threads)


def rows_of(model, shape):
    return str(model.plan_inference(shape)).split("\n")[2:-2]


def conv(C=4, F=4, **options):
    return nn.Conv(C, F, 3, padding=1, rng=0, **options)


TAKEN = {
    "pool": [conv(), nn.MaxPool(2)],
    "ReLU and pool": [conv(), nn.ReLU(), nn.MaxPool((2, 2), stride=2)],
    "normalisation": [conv(), nn.BatchNorm(4)],
    "all": [conv(activation="relu"), nn.BatchNorm(4), nn.ReLU(), nn.MaxPool([2, 2])],
    "sum": [nn.Residual(nn.Sequential(conv(), nn.BatchNorm(4))), nn.ReLU()],
    "sum with a convolution alone": [nn.Residual(conv())],
}
NOT_TAKEN = {
    "another window": ([conv(), nn.MaxPool(3)], 2),
    "windows apart": ([conv(), nn.MaxPool(2, stride=1)], 2),
    "padding": ([conv(), nn.MaxPool(2, padding=1)], 2),
    "a partial window": ([conv(), nn.MaxPool(2, ceil_mode=True)], 2),
    "means": ([conv(), nn.AvgPool(2)], 2),
    "one channel, one filter": (
        [nn.Conv(4, 4, 1, rng=0), conv(4, 1), conv(1, 1), nn.MaxPool(2)],
        4,
    ),
    "a sum after ReLU": ([nn.Residual(nn.Sequential(conv(), nn.BatchNorm(4), nn.ReLU()))], 2),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_follows_is_one_operation(name):
    model = numbered(nn.Sequential(*TAKEN[name]))
    rows = rows_of(model, (3, 8, 8, 4))
    # the statistics of a normalisation are taken once, by an operation of their own
    assert len([row for row in rows if "statistics" not in row]) == 1
    x = images((3, 8, 8, 4), np.float32, 9)
    assert same_bits(model.plan_inference(x.shape)(x), model.infer(x))


@pytest.mark.parametrize("name", NOT_TAKEN)
def test_what_a_convolution_leaves_to_others(name):
    layers, operations = NOT_TAKEN[name]
    model = numbered(nn.Sequential(*layers))
    rows = rows_of(model, (3, 8, 8, 4))
    assert len([row for row in rows if "statistics" not in row]) == operations
    x = images((3, 8, 8, 4), np.float32, 9)
    assert same_bits(model.plan_inference(x.shape)(x), model.infer(x))


def test_layers_of_ones_own_are_not_taken_over():
    class Louder(nn.MaxPool):
        def forward(self, x):
            return 2 * super().forward(x)

    class Shifted(nn.BatchNorm):
        def forward(self, x):
            return super().forward(x) + 1

    x = images((2, 8, 8, 4), np.float32, 0)
    for layer in (Louder(2), Shifted(4)):
        model = nn.Sequential(conv(), layer)
        run = model.plan_inference(x.shape)
        assert same_bits(run(x), model.infer(x))
        kind = nn.MaxPool(2) if isinstance(layer, nn.MaxPool) else nn.BatchNorm(4)
        assert not np.array_equal(run(x), nn.Sequential(conv(), kind).infer(x))


@pytest.mark.parametrize("options", [{"stride": 0}, {"stride": -2}, {"padding": -1}])
def test_a_pooling_that_is_wrong_is_refused_behind_a_convolution(options):
    model = nn.Sequential(conv(), nn.MaxPool(2, **options), nn.Flatten())
    for made in (lambda: model.plan_inference((2, 8, 8, 4)), lambda: planned(model, (2, 8, 8, 4))):
        with pytest.raises(ValueError, match=next(iter(options))):
            made()
    small = nn.Sequential(conv(), nn.MaxPool(2), nn.MaxPool(2), nn.Flatten())
    for made in (lambda: small.plan_inference((2, 3, 3, 4)), lambda: planned(small, (2, 3, 3, 4))):
        with pytest.raises(ValueError, match="window"):
            made()


def test_settings_of_what_was_taken_over_are_watched():
    """A pooling, or a normalisation, that is changed later."""
    model = numbered(nn.Sequential(conv(), nn.BatchNorm(4), nn.MaxPool(2)))
    x = images((2, 8, 8, 4), np.float32, 0)
    run = model.plan_inference(x.shape)
    assert same_bits(model.predict(x), run(x))
    model.layers[1].epsilon = 0.5
    assert same_bits(model.predict(x), model.infer(x))
    model.layers[2].settings = {**model.layers[2].settings, "stride": 1}
    assert model.predict(x).shape == (2, 7, 7, 4)
    assert same_bits(model.predict(x), model.infer(x))
    run.refresh()
    assert same_bits(run(x), model.infer(x))


def test_the_first_nan_of_a_window_wins():
    """As everywhere: its sign and its payload tell it from another."""
    bits = np.array([0x7FC00001, 0x7FC00002, 0xFFC00003, 0x7FC00004], np.uint32)
    x = np.full((1, 4, 4, 1), 5, np.float32)
    x[0, :2, 2:, 0].flat[:] = bits.view(np.float32)
    x[0, 2:, :2, 0].flat[1:3] = bits[:2].view(np.float32)
    y = nn.MaxPool(2).infer(x)
    for F in (2, 5, 20):
        layer = nn.Conv(1, F, 1, rng=0)
        layer.w.value[...] = 1
        model = nn.Sequential(layer, nn.MaxPool(2))
        found = model.plan_inference(x.shape)(x)
        assert same_bits(found, model.infer(x))
        assert same_bits(found[..., F - 1 :], y)


def test_what_lies_between_takes_no_memory():
    model = nn.Sequential(conv(1, 32), nn.BatchNorm(32), nn.ReLU(), nn.MaxPool(2))
    shape = (64, 28, 28, 1)
    between = 64 * 28 * 28 * 32 * 4
    with fc.num_threads(1):
        assert model.plan_inference(shape).workspace_nbytes < between / 2


# ------------------------------------------------------------------------------- algorithm="fast"

FAST = {
    "pool": lambda: [conv(32, 32, activation="relu"), nn.MaxPool(2)],
    "all": lambda: [conv(32, 32), nn.BatchNorm(32), nn.ReLU(), nn.MaxPool(2)],
    "sum": lambda: [nn.Residual(nn.Sequential(conv(32, 32), nn.BatchNorm(32))), nn.ReLU()],
    "sum with a convolution alone": lambda: [nn.Residual(conv(32, 32)), nn.ReLU()],
    "the exact way, then not": lambda: [conv(32, 8), nn.MaxPool(2), conv(8, 32), nn.ReLU(),
                                        conv(32, 32), nn.ReLU(), nn.MaxPool(2)],
}  # fmt: skip


@pytest.mark.parametrize("name", FAST)
def test_behind_minimal_filtering_layers_follow_in_turn(name):
    """The bits are those of the plain layers, by inference and by steps."""
    model, shape = numbered(nn.Sequential(*FAST[name]())), (3, 12, 12, 32)
    x = images(shape, np.float32, 9)
    exact = model.infer(x)
    with fc.algorithm("fast"):
        right = model.infer(x)
    assert not same_bits(right, exact)
    run = model.plan_inference(shape, algorithm="fast")
    assert same_bits(run(x), right)
    assert same_bits(model.plan_inference(shape)(x), exact)
    with fc.algorithm("fast"):
        assert same_bits(model.predict(x), right)
    model = nn.Sequential(*FAST[name](), nn.GlobalAvgPool())
    twin, made = copy.deepcopy(model), [nn.MeanSquaredError() for _ in range(2)]
    optimizers = [nn.SGD(m.parameters(), lr=0.1) for m in (model, twin)]
    step = nn.plan_step(model, made[0], optimizers[0], shape, algorithm="fast")
    batches = [(images(shape, np.float32, 0, i), labels(made[0], (3, 32), i)) for i in range(2)]
    with fc.algorithm("fast"):
        compare_steps(step, model, made[0], optimizers[0], (twin, made[1], optimizers[1]), batches)


def test_fast_layers_that_are_computed_exactly_are_followed_at_once():
    """Few channels: "fast" is the exact way, and takes the layers behind it over."""
    model, shape = numbered(nn.Sequential(*TAKEN["all"])), (3, 8, 8, 4)
    rows = str(model.plan_inference(shape, algorithm="fast")).split("\n")[2:-2]
    assert rows == rows_of(model, shape)
    wide = nn.Sequential(*FAST["all"]())
    fused, plain = (
        str(wide.plan_inference((3, 12, 12, 32), algorithm=name)).count("forward")
        for name in ("exact", "fast")
    )
    assert (fused, plain) == (1, 3)


# ---------------------------------------------------------------------------------------- training


@st.composite
def pooled(draw):
    """A network in which maxima follow convolutions, and batches in which many cells are equal."""
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    shape = (draw(st.integers(4, 13)), draw(st.integers(4, 13)), draw(st.sampled_from([1, 2, 3])))
    layers, before = [], shape
    for _ in range(draw(st.integers(1, 2))):
        F = draw(st.sampled_from([1, 2, 5, 8, 9, 17, 33]))
        groups = draw(st.sampled_from([g for g in (1, 2, 3) if F % g == shape[-1] % g == 0]))
        conv = nn.Conv(
            shape[-1], F, draw(st.sampled_from([1, (2, 3), 3])), stride=draw(st.integers(1, 2)),
            padding=draw(st.sampled_from(["same", 1])), bias=draw(st.booleans()), groups=groups,
            activation=draw(st.sampled_from([None, "relu"])), rng=1, dtype=dtype,
        )  # fmt: skip
        conv.w.value[...] = np.round(2 * conv.w.value)
        after = [nn.ReLU()] * draw(st.integers(0, 1)) + [nn.MaxPool(2)]
        try:
            shape = nn.Sequential(conv, *after).infer(np.zeros((1, *shape), dtype)).shape[1:]
        except ValueError:  # an image too small to be pooled
            break
        layers += [conv, *after]
    model = nn.Sequential(*(layers or [nn.ReLU()]), nn.Flatten())
    model = nn.Sequential(*model.layers, nn.Dense(int(np.prod(shape)), 3, rng=2, dtype=dtype))
    rng, batches = np.random.default_rng(0), []
    for m in (draw(st.sampled_from([1, 2, 6, 30])), 1, 2):
        x = rng.integers(-2, 3, (m, *before)) * rng.choice([1.0, -0.0], (m, 1, 1, 1))
        batches.append((x.astype(dtype), labels(nn.MeanSquaredError(), (m, 3))))
    return model, batches


def check_pooled(model, batches, threads):
    most = max(len(x) for x, _ in batches)
    twin, made = copy.deepcopy(model), [nn.MeanSquaredError() for _ in range(2)]
    optimizers = [nn.SGD(m.parameters(), lr=0.5, momentum=0.5) for m in (model, twin)]
    with fc.num_threads(threads):
        step = nn.plan_step(model, made[0], optimizers[0], (most, *batches[0][0].shape[1:]))
        compare_steps(step, model, made[0], optimizers[0], (twin, made[1], optimizers[1]), batches)
    shapes = [layer.output_shape for layer in model.layers]
    assert shapes == [layer.output_shape for layer in twin.layers]


@settings(max_examples=40, **COLD)
@given(pooled(), st.integers(1, 3))
def test_drawn_steps_with_maxima_behind_convolutions(case, threads):
    check_pooled(*case, threads)


@pytest.mark.soak
@settings(max_examples=3000, **COLD)
@given(pooled(), st.integers(1, 3))
def test_many_drawn_steps_with_maxima_behind_convolutions(case, threads):
    check_pooled(*case, threads)


def planned(model, shape):
    loss = nn.MeanSquaredError()
    return nn.plan_step(model, loss, nn.SGD(model.parameters(), lr=0.1), shape)


def test_a_step_keeps_a_byte_of_each_maximum():
    """Neither what lies before the maxima, twice, nor eight bytes of each winner."""
    model = nn.Sequential(conv(1, 16, activation="relu"), nn.MaxPool(2), nn.GlobalAvgPool())
    with fc.num_threads(1):
        step = planned(model, (64, 28, 28, 1))
    rows = [row.split("  ")[0] for row in str(step).split("\n")[2:5]]
    assert rows == ["0 Conv forward + maxima", "2 GlobalAvgPool forward", "loss"]
    before = 64 * 28 * 28 * 16 * 4  # the error before them is one such array
    assert step.workspace_nbytes < 1.9 * before


def test_gradients_through_maxima_of_a_convolution_with_padding_and_an_odd_image():
    """Against finite differences, in float64."""
    model = nn.Sequential(
        conv(2, 3, dtype=np.float64), nn.ReLU(), nn.MaxPool(2), nn.Flatten(),
        nn.Dense(27, 2, rng=1, dtype=np.float64),
    )  # fmt: skip
    x = images((4, 7, 6, 2), np.float64, 0)
    y = labels(nn.MeanSquaredError(), (4, 2))
    loss = nn.MeanSquaredError()
    step = nn.plan_step(model, loss, nn.SGD(model.parameters(), lr=0.0), x.shape)
    step(x, y)
    w, dw = model.layers[0].w.value, model.layers[0].w.grad.copy()
    for at in np.ndindex(w.shape):
        kept, values = w[at], []
        for small in (1e-6, -1e-6):
            w[at] = kept + small
            values.append(step(x, y)[0])
        w[at] = kept
        assert abs((values[0] - values[1]) / 2e-6 - dw[at]) < 1e-6


# -------------------------------------------------------------------------------------- the tables


def test_the_order_of_sums_does_not_depend_on_narrow_vectors():
    """Boxes and parts of a kernel gradient are those of whole vectors."""
    for columns in (1, 5, 8, 9):
        choice = kernel_choice(conv_geometry((64, 12, 12, 3), (3, 3, 3, columns)), np.dtype("f4"))
        whole = replace(choice, tile=choice.cut_for)
        assert (choice.box, choice.parts) == (whole.box, whole.parts)
        assert choice.cut_for.lanes == cpu_lanes(np.dtype("f4"))
        assert choice.tile.lanes == narrow_lanes(columns, np.dtype("f4"))


def test_rows_and_columns_that_no_maximum_needs_are_not_computed():
    g, dtype = conv_geometry((4, 13, 15, 3), (3, 3, 3, 8)), np.dtype(np.float32)
    choice = finished_choice(g, dtype, True)
    assert choice.lattice.count == (1, 10, 12)
    plain = products(g, dtype).product("forward").choice
    assert (choice.tile, choice.runs) == (plain.tile, plain.runs)
    assert finished(g, dtype, True).choice is choice
    volume = conv_geometry((4, 3, 9, 9, 2), (1, 1, 1, 2, 4))
    assert finished_choice(volume, dtype, True) is None
    with pytest.raises(ValueError, match="another loop"):
        finished(volume, dtype, True)


@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 4000),
    st.integers(1, 20), st.integers(1, 4), st.integers(1, 3),
)  # fmt: skip
def test_boxes_keep_units_whole(m, height, width, pixel_bytes, boxes, threads, unit):
    count = (1, height * unit, width * unit)
    lattice = Lattice(
        count, (1, 1, 1), (1, 1, 1),
        (Phase((0, 0, 0), count, (0, 0, 0), (0,), ((0, 0, 0),)),),
    )  # fmt: skip
    box = choose_box(m, lattice, 8, pixel_bytes, boxes, 2**17, threads, unit)
    assert all(1 <= b <= n for b, n in zip(box, (m, *count), strict=True))
    assert box[2] % unit == 0
    assert box[3] % unit == 0
    assert box[0] == 1 or box[2:] == count[1:]
    least = box[0] == 1 and box[2] == unit and box[3] == unit
    assert np.prod(box) * (pixel_bytes + 8) <= 2**17 or least
