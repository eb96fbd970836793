"""Every public function as a user writes it, with the type that each result must have.

`test_types.py` runs mypy in strict mode over this file, which must find nothing, and runs it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import fastconv as fc
from fastconv import cache, examples, explain, nn, reference, testing
from fastconv.adapters import coursera, cs231n
from fastconv.typing import Algorithm, Array, ConvOptions, DataFormat, Indices, Padding

Floats = NDArray[np.floating[Any]]

rng = np.random.default_rng(0)
x = rng.normal(size=(2, 8, 8, 1)).astype("float32")
w = rng.normal(size=(3, 3, 1, 4)).astype("float32")
b = np.zeros(4, "float32")


def functions() -> None:
    """The functions, forward and backward."""
    a1 = assert_type(fc.conv(x, w, b, padding="same", activation="relu"), Floats)
    a2, argmax = assert_type(fc.max_pool(a1, 2, return_argmax=True), tuple[Array, Indices])
    da1 = assert_type(fc.max_pool_backward(np.ones_like(a2), argmax, a1.shape, 2), Floats)
    dz = assert_type(fc.relu_backward(da1, a1), Floats)
    dx, dw, db = assert_type(fc.conv_backward(dz, x, w, padding="same"), fc.ConvGrads[Array])
    assert_type(dx + 1, Floats)
    assert_type(dw - 1, Floats)
    assert_type(db - 1, Floats)
    some = assert_type(fc.conv_backward(dz, x, w, padding=1, need="w"), fc.ConvGrads[Array | None])
    assert some.dx is None
    assert_type(some.dw, Floats | None)
    both: fc.ConvGrads = fc.conv_backward(dz, x, w, padding=1, need=("w", "b"))
    assert both.dx is None
    assert_type(fc.conv_input_grad(dz, w, x.shape, padding=[(1, 1), 1]), Floats)
    assert_type(fc.conv_kernel_grad(x, dz, w.shape, padding=(1, np.int64(1))), Floats)
    assert_type(fc.max_pool(a1, (2, 2), stride=1, ceil_mode=True), Floats)
    wanted = bool(a1.size)
    assert_type(fc.max_pool(a1, 2, return_argmax=wanted), Floats | tuple[Array, Indices])
    mean = assert_type(fc.avg_pool(a1, 2, count_include_pad=True), Floats)
    assert_type(fc.avg_pool_backward(mean, a1.shape, 2, count_include_pad=True), Floats)
    cols = assert_type(fc.im2col([[[1.0], [2.0], [3.0]]], 2), Floats)
    assert_type(fc.col2im(cols, (1, 3, 1), 2), Floats)
    up = assert_type(fc.conv_transpose(a2, w, stride=2, output_padding=1), Floats)
    assert_type(
        fc.conv_transpose_backward(up, a2, w, stride=2, output_padding=1), fc.ConvGrads[Array]
    )
    first: DataFormat = "channels_first"
    options: ConvOptions = {"padding": "full", "data_format": first}
    assert_type(fc.conv(np.moveaxis(x, -1, 1), w, out=None, **options), Floats)


def plans() -> None:
    """A plan, threads, kernels."""
    plan = assert_type(fc.plan_conv((2, 8, 8, 1), (3, 3, 1, 4), "float32"), fc.ConvPlan)
    y = np.empty(plan.y_shape, plan.dtype)
    assert_type(plan.forward(x, w, b, out=y), Floats)
    assert_type(plan.input_grad(y, w), Floats)
    assert_type(plan.kernel_grad(x, y), Floats)
    assert_type(plan.backward(y, x, w), fc.ConvGrads[Array])
    assert_type(plan.backward(y, x, w, need=["x"]), fc.ConvGrads[Array | None])
    assert_type((plan.workspace_nbytes, plan.flops), tuple[int, int])
    assert_type(plan.x_shape, tuple[int, ...])
    way: Algorithm = "fast"
    ways: AbstractContextManager[None] = fc.algorithm(way)
    with ways:
        assert_type(fc.conv(x, w, algorithm=None), Floats)
        assert_type(fc.conv(x, w, padding=1, padding_mode="edge", algorithm=way), Floats)
        assert_type(fc.conv_transpose(y, w, algorithm="exact"), Floats)
    fc.plan_conv((2, 8, 8, 1), (3, 3, 1, 4), padding_mode="wrap", algorithm=way)
    nn.Conv(4, 2, 3, padding_mode="reflect", algorithm="fast")
    assert_type(
        fc.conv_backward(np.ones((2, 6, 6, 4), "f4"), x, w, algorithm=way), fc.ConvGrads[Array]
    )
    held: AbstractContextManager[None] = fc.num_threads(1)
    with held:
        assert_type(fc.get_num_threads(), int)
    fc.set_num_threads(fc.get_num_threads())
    fc.warmup(ops=["relu_backward"], dtypes=("float32", np.float64))
    fc.show_config()
    assert_type(cache.path(), Path)
    assert_type(cache.describe(), str)
    assert callable(cache.clear)


def naive() -> None:
    """The naive loops, and the checks."""
    y = assert_type(reference.conv(x, w, b, stride=2), Floats)
    grads = assert_type(reference.conv_backward(y, x, w, stride=2), reference.ConvGrads[Array])
    assert_type(grads.dw, Floats)
    some = reference.conv_backward(y, x, w, stride=2, need=("w",))
    assert_type(some, reference.ConvGrads[Array | None])
    assert_type(reference.conv_input_grad(y, w, x.shape, stride=2), Floats)
    assert_type(reference.conv_kernel_grad(x, y, w.shape, stride=2), Floats)
    up = assert_type(reference.conv_transpose(y, w), Floats)
    assert_type(reference.conv_transpose_backward(up, y, w), reference.ConvGrads[Array])
    top, argmax = assert_type(reference.max_pool(x, 2, return_argmax=True), tuple[Array, Indices])
    assert_type(reference.max_pool(x, 2), Floats)
    assert_type(reference.max_pool_backward(top, argmax, x.shape, 2), Floats)
    assert_type(reference.avg_pool(x, 2), Floats)
    assert_type(reference.avg_pool_backward(top, x.shape, 2), Floats)
    assert_type(reference.relu_backward(top, top), Floats)
    cols = assert_type(reference.im2col(x, 2), Floats)
    assert_type(reference.col2im(cols, x.shape, 2), Floats)

    operands = testing.integer_operands((2, 5, 5, 3), (3, 3, 3, 2), padding="same")
    x5, w3, b2, dy3 = assert_type(operands, testing.Operands)
    testing.assert_conv_equal(fc.conv, x5, w3, b2, padding="same", activation="relu")
    testing.assert_conv_backward_equal(fc.conv_backward, dy3, x5, w3, padding="same")
    dx = fc.conv_input_grad(dy3, w3, x5.shape, padding="same")
    testing.assert_adjoint((fc.conv(x5, w3, padding="same"), dy3), (x5, dx))
    testing.gradcheck(np.sin, lambda dy, t: dy * np.cos(t), np.linspace(0.0, 1.0, 5))
    assert_type(testing.untied((2, 2)), Floats)


class Twice(nn.Layer):
    """A layer of the user's own."""

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Twice the input."""
        y: NDArray[Any] = x + x
        return y

    def backward(self, dy: NDArray[Any]) -> NDArray[Any]:
        """Twice the error."""
        dx: NDArray[Any] = dy + dy
        return dx


def layers() -> Iterator[nn.Layer]:
    """Every layer, after its forward and backward."""
    window: tuple[int, int] = (3, 3)
    same: Padding = "same"
    images = [
        nn.Conv(1, 2, window, padding=same, activation="relu", init="glorot", rng=0),
        nn.ConvTranspose(2, 2, 2, stride=2, output_padding=0, dtype="float32", rng=0),
        nn.MaxPool(2),
        nn.AvgPool((2, 2), padding=0, count_include_pad=True),
        nn.BatchNorm(2),
        nn.Residual(nn.ReLU()),
        nn.Dropout(0.5, seed=0),
        nn.SpatialDropout(0.5),
        nn.Tanh(),
        nn.Concat(nn.Identity(), nn.SeparableConv(2, 2, 3, padding="same", rng=0)),
        nn.Conv(4, 2, 3, padding=1, padding_mode="reflect", rng=0),
        nn.Pad(((0, 1), 1), "wrap"),
        nn.Upsample((2, 2), mode="bilinear"),
        nn.AdaptiveAvgPool(4),
        nn.AdaptiveMaxPool((2, 4)),
        nn.LayerNorm(2),
        nn.GroupNorm(1, 2),
        nn.InstanceNorm(2, epsilon=1e-3),
        nn.LeakyReLU(0.1),
        nn.ELU(),
        nn.GELU(),
        nn.SiLU(),
        nn.Softplus(),
        nn.Hardswish(),
        Twice(),
    ]
    body = nn.Sequential(*images, nn.GlobalAvgPool(), nn.Sigmoid(), ops=reference, name="body")
    y = assert_type(body.forward(x), NDArray[Any])
    assert_type(body.backward(y), NDArray[Any])
    assert_type(body.infer(x), NDArray[Any])
    assert_type(body.parameters(), list[nn.Parameter])
    assert_type(nn.Dropout(0.5).eval(), nn.Dropout)
    assert_type(nn.sigmoid(y), NDArray[Any])
    yield from body.layers


def training(folder: Path) -> None:
    """A network from data to file."""
    model = nn.Sequential(nn.Flatten(), nn.Dense(64, 10, rng=0))
    labels = np.array([1, 2])
    loss: nn.Loss = nn.SoftmaxCrossEntropy()
    optimizer: nn.Optimizer = nn.Adam(model.parameters(), lr=0.002)
    value, z = assert_type(
        nn.train_step(model, loss, optimizer, x, labels), tuple[float, NDArray[Any]]
    )
    assert value > 0
    assert_type(loss.predict(z), NDArray[Any])

    def stop(state: nn.FitState) -> None:
        state.stop = state.epoch == 2

    step = assert_type(nn.plan_step(model, loss, optimizer, x.shape), nn.StepPlan)
    assert_type(step(x, labels), tuple[float, NDArray[Any]])
    assert_type(step.profile(x, labels)[0].seconds, float)
    run = assert_type(model.plan_inference(x.shape), nn.InferencePlan)
    assert_type(run(x), NDArray[Any])
    assert nn.register(Twice) is Twice
    history = nn.fit(
        model,
        loss,
        nn.SGD(model.parameters(), lr=0.01),
        x,
        labels,
        epochs=3,
        validation=(x, labels),
        early_stopping=nn.EarlyStopping(patience=2),
        callbacks=[nn.ExponentialDecay(0.01, 0.9)],
        checkpoint=folder / "run",
    )
    assert_type(history, nn.History)
    assert_type(history["loss"], list[float])
    assert_type(history["accuracy"], list[float | None])
    assert_type(history[0]["val_loss"], float | None)
    assert callable(stop)
    point = assert_type(nn.load_checkpoint(folder / "run"), nn.Checkpoint)
    nn.save_checkpoint(folder / "copy", point)
    assert_type(nn.previous_path(folder / "run"), Path)
    assert_type(nn.evaluate(model, loss, x, labels), tuple[float, float | None])
    assert_type(model[0], nn.Layer)
    assert_type(model[1:], nn.Sequential)
    assert_type(nn.GlobalMaxPool()(x), NDArray[Any])
    assert_type(nn.PixelShuffle(2)(np.ones((1, 2, 2, 4), "f4")), NDArray[Any])
    weighted = nn.SoftmaxCrossEntropy(class_weight={0: 2.0}, ignore_index=-1)
    assert_type(weighted.forward(z, labels, np.ones(len(z))), float)
    assert_type(nn.FocalLoss(gamma=1.0).forward(z, labels), float)
    assert_type(nn.Huber(0.5).forward(z, z), float)
    with nn.evaluating(model):
        assert_type(nn.BinaryCrossEntropy().forward(z, np.zeros_like(z)), float)
        assert_type(nn.MeanSquaredError().forward(z, z), float)
    model.save(folder / "model.npz")
    again = assert_type(nn.Sequential.load(folder / "model.npz"), nn.Sequential)
    again.save_weights(folder / "weights.npz")
    again.load_weights(folder / "weights.npz", input_shape=(8, 8, 1))
    again.to_onnx(folder / "model.onnx", input_shape=(8, 8, 1))
    assert_type(nn.from_onnx(folder / "model.onnx"), nn.Sequential)
    assert_type(nn.saliency(again, x, 3), NDArray[Any])
    some = nn.Sequential(nn.Conv(1, 2, 3, rng=0), nn.GlobalAvgPool(), nn.Dense(2, 2, rng=0))
    assert_type(nn.class_activation_map(some, x, [0, 1], layer=0), NDArray[Any])
    assert_type(again.predict(x), NDArray[Any])
    assert_type(again.summary((8, 8, 1)), str)
    settings(again, folder)


def settings(model: nn.Sequential, folder: Path) -> None:
    """Optimizers by groups, schedules, and what looks on."""
    kernels, biases = model.parameters()[:1], model.parameters()[1:]
    optimizers: list[nn.Optimizer] = [
        nn.AdamW([{"parameters": kernels, "weight_decay": 0.1}, {"parameters": biases}]),
        nn.RMSprop(model.parameters(), alpha=0.9),
    ]
    schedules: list[nn.Schedule] = [
        nn.CosineDecay(0.1, 3, warmup=1, per="step"),
        nn.StepDecay(0.1, 2, 0.5),
        nn.OneCycle(0.1, 3),
    ]
    plateau = nn.ReduceOnPlateau(0.1, factor=0.5, patience=3)
    watching = [nn.ParameterAverage(0.9), nn.CSVLog(folder / "a.csv"), nn.TensorBoard(folder)]
    labels = np.zeros(len(x), np.int64)
    for optimizer in optimizers:
        nn.fit(
            model, nn.SoftmaxCrossEntropy(), optimizer, x, labels, epochs=1, verbose=0,
            callbacks=[*schedules, plateau, *watching], class_weight={0: 2.0},
            sample_weight=[1.0, 2.0], clip_norm=1.0, clip_value=1.0, validation_fraction=0.5,
            best_checkpoint=folder / "best.npz",
        )  # fmt: skip


def networks(folder: Path) -> None:
    """The example networks and their data."""
    assert_type(examples.binary_cnn(seed=0, dtype=np.float64, ops=reference), nn.Sequential)
    assert_type(examples.two_conv_cnn(subsampling="mean", activation="relu"), nn.Sequential)
    assert_type(examples.digits_cnn(), nn.Sequential)
    assert_type(examples.fashion_cnn(), nn.Sequential)
    np.savez(folder / "images.npz", x=np.zeros((10, 4, 4)), y=np.arange(10) % 2)
    data = assert_type(examples.load_npz(folder / "images.npz"), examples.Dataset)
    assert_type(data.x_train, NDArray[Any])
    assert_type(examples.load_data(folder / "images.npz"), examples.Dataset)
    assert_type(
        examples.stratified_split(np.arange(10) % 2), tuple[NDArray[Any], NDArray[Any]]
    )  # fmt: skip
    assert_type(examples.RandomShift(1)(data.x_train, rng), NDArray[Any])
    steps = (
        examples.RandomCrop(2),
        examples.RandomFlip(),
        examples.RandomAffine(10),
        examples.Cutout(3),
        examples.RandomBrightness(0.1),
    )
    augment = assert_type(examples.Compose(*steps), examples.Compose)
    assert_type(augment(data.x_train, rng), NDArray[Any])
    mixed = examples.Mixup(classes=3)(data.x_train, rng, data.y_train)
    assert_type(mixed, tuple[NDArray[Any], NDArray[Any]])
    recipe = assert_type(examples.DIGITS_RECIPE, examples.Recipe)
    assert_type(examples.RECIPES, dict[str, examples.Recipe])
    assert_type(recipe.optimizer(examples.digits_cnn()), nn.Adam)
    assert callable(examples.load_digits)
    assert callable(examples.load_idx)
    assert callable(examples.load_cifar)
    assert callable(examples.load_folder)
    assert_type(examples.ImageFiles([]).shape, tuple[int, ...])


def courses() -> None:
    """Course code."""
    prev, W, bias = np.ones((2, 6, 6, 3)), np.ones((3, 3, 3, 8)), np.zeros((1, 1, 1, 8))
    Z, cached = coursera.conv_forward(prev, W, bias, {"stride": 2, "pad": 1})
    assert_type(Z, Floats)
    assert_type(coursera.conv_backward(Z, cached), tuple[Array, Array, Array])
    A, pooled = coursera.pool_forward(prev, {"f": 2, "stride": 2}, mode="average")
    assert_type(coursera.pool_backward(A, pooled, mode="average"), Floats)
    padded = assert_type(coursera.zero_pad(prev, 1), Floats)
    patch = padded[0, : W.shape[0], : W.shape[1]]
    assert_type(coursera.conv_single_step(patch, W[..., 0], 0.5), float)
    assert_type(coursera.create_mask_from_window(patch[..., 0]), NDArray[np.bool_])
    assert_type(coursera.compute_mask(patch[..., 0]), NDArray[np.bool_])
    assert_type(coursera.distribute_value(2.0, (2, 2)), Floats)
    images, kernel = np.ones((2, 3, 6, 6)), np.ones((4, 3, 3, 3))
    out, kept = cs231n.conv_forward_fast(images, kernel, np.zeros(4), {"stride": 1, "pad": 1})
    assert_type(cs231n.conv_backward_fast(out, kept), tuple[Array, Array, Array])
    pool = {"pool_height": 2, "pool_width": 2, "stride": 2}
    top, held = cs231n.max_pool_forward_fast(images, pool)
    assert_type(cs231n.max_pool_backward_fast(top, held), Floats)
    out, kept = cs231n.conv_forward_naive(images, kernel, np.zeros(4), {"stride": 1, "pad": 1})
    assert_type(cs231n.conv_backward_naive(out, kept), tuple[Array, Array, Array])
    top, pair = cs231n.max_pool_forward_naive(images, pool)
    assert_type(cs231n.max_pool_backward_naive(top, pair), Floats)


def explanations() -> None:
    """Images through a small network and back."""
    walk = assert_type(explain.explain(np.eye(8), 1, pool="mean"), explain.Explanation)
    assert_type(walk.html(), str)
    two = explain.explain(np.eye(14), [1], model="two_conv", filters=(1, 2), activation="relu")
    assert_type(two.equations["delta1"], str)


if __name__ == "__main__":
    functions()
    plans()
    naive()
    assert list(layers())
    with tempfile.TemporaryDirectory() as place:
        training(Path(place))
        networks(Path(place))
    courses()
    explanations()
