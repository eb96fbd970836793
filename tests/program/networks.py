"""Networks that Hypothesis draws, the plain way of a step, and all that a step may change."""

import copy
import math

import numpy as np
from hypothesis import strategies as st

from fastconv import nn


class Scale(nn.Layer):
    """A layer of a user's own with a parameter."""

    def __init__(self, channels, dtype):
        super().__init__()
        self.s = self.add_parameter("s", np.linspace(0.5, 1.5, channels).astype(dtype))

    def forward(self, x):
        self.x = x
        return x * self.s.value

    def backward(self, dy):
        self.s.grad[...] = (dy * self.x).reshape(-1, self.x.shape[-1]).sum(0)
        return dy * self.s.value


class Square(nn.Layer):
    """A layer of a user's own without parameters."""

    def forward(self, x):
        self.x = x
        return x * x

    def backward(self, dy):
        return 2 * self.x * dy


class Louder(nn.Conv):
    """A subclass that overrides a pass, and so leaves the inherited `lower` behind."""

    def forward(self, x):
        return 2 * super().forward(x)

    def backward(self, dy):
        return super().backward(2 * dy)

    def backward_parameters(self, dy):
        super().backward_parameters(2 * dy)


class Absolute(nn.Loss):
    """A loss of a user's own."""

    def forward(self, z, y):
        difference = z - np.asarray(y, z.dtype).reshape(len(z), *(1 for _ in z.shape[1:]))
        self._dz = (np.sign(difference) / difference.size).astype(z.dtype)
        return float(np.abs(difference).mean())


class Signs(nn.Optimizer):
    """An optimizer of a user's own."""

    def __init__(self, parameters, lr=0.01):
        super().__init__(parameters, lr, 0, {})

    def step(self):
        for parameter in self.parameters:
            parameter.value -= parameter.value.dtype.type(self.lr) * np.sign(parameter.grad)
        self.steps += 1


def patched(layer):
    """A layer that was given passes of its own."""
    forward, backward = layer.forward, layer.backward
    layer.forward = lambda x: -forward(x)
    layer.backward = lambda dy: backward(-dy)
    return layer


# ------------------------------------------------------------------------------------ the plain way


def plain_step(model, loss, optimizer, x, y):
    """A step as the layers' own passes make it."""
    z = model.forward(x)
    value = loss.forward(z, y)
    if math.isfinite(value):
        model.backward_parameters(loss.backward())
        optimizer.step()
    return value, z


def state(model, optimizer=None):
    """Bytes of all that a step may change, by name."""
    found = {f"value {k}": p.value.tobytes() for k, p in model.named_parameters().items()}
    found |= {f"grad {k}": p.grad.tobytes() for k, p in model.named_parameters().items()}
    found |= {f"buffer {k}": b.tobytes() for k, b in model.named_buffers().items()}
    found |= {k: repr(g.bit_generator.state) for k, g in model.named_generators().items()}
    if optimizer is not None:
        found |= {f"optimizer {k}": a.tobytes() for k, a in optimizer.state().items()}
    return found


def differences(a, b):
    """Names of what is not the same."""
    assert a.keys() == b.keys()
    return [name for name in a if a[name] != b[name]]


def same_bits(a, b):
    """Whether two arrays or numbers are the same, signs of zeros and all."""
    a, b = np.asarray(a), np.asarray(b)
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def compare_steps(step, model, loss, optimizer, twin, batches):
    """Make steps by `step(x, y)`, and of `twin` = (model, loss, optimizer) in the plain way."""
    for number, (x, y) in enumerate(batches):
        kept = x.copy()
        value, z = step(x, y)
        right, right_z = plain_step(*twin, x, y)
        assert same_bits(x, kept), "x has changed"
        assert same_bits(value, right), (number, value, right)
        assert same_bits(z, right_z), f"z of step {number}"
        wrong = differences(state(model, optimizer), state(twin[0], twin[2]))
        assert not wrong, (number, wrong)


# ---------------------------------------------------------------------------------------- networks


def integers(low, high):
    return st.integers(low, max(low, high))


@st.composite
def per_axis(draw, sizes, most):
    """A number for each axis, at most its size."""
    return tuple(draw(integers(1, min(most, n))) for n in sizes)


@st.composite
def convs(draw, shape, dtype, kind=nn.Conv):
    *sizes, channels = shape
    groups = draw(st.sampled_from([g for g in (1, 2, 3) if channels % g == 0]))
    filters = groups * draw(integers(1, 6 // groups))
    options = {"dilation": draw(st.sampled_from([1, 1, 2])), "groups": groups}
    options["padding"] = draw(st.sampled_from(["same", "valid", 0, 1]))
    options["stride"] = draw(per_axis([2] * len(sizes), 2))
    if kind is nn.ConvTranspose:
        options["output_padding"] = tuple(
            draw(integers(0, stride - 1)) for stride in options["stride"]
        )
        if options["padding"] in ("same", "valid"):
            options["padding"], options["output_padding"] = 0, 0
    if kind is not nn.ConvTranspose:
        modes = ["constant", "constant", "reflect", "edge", "wrap"]
        options["padding_mode"] = draw(st.sampled_from(modes))
    options["activation"] = draw(st.sampled_from([None, "relu"]))
    options["bias"] = draw(st.booleans())
    layer = kind(channels, filters, draw(per_axis(sizes, 3)), **options, rng=1, dtype=dtype)
    if layer.b is not None:
        layer.b.value[...] = np.linspace(-0.5, 0.7, filters)
    return layer


@st.composite
def pools(draw, shape, dtype):
    kind = draw(st.sampled_from([nn.MaxPool, nn.AvgPool]))
    window = draw(per_axis(shape[:-1], 3))
    options = {"ceil_mode": draw(st.booleans())}
    options["stride"] = draw(st.none() | per_axis([3] * len(window), 3))
    options["padding"] = draw(st.sampled_from([0, tuple(n // 2 for n in window), "same"]))
    if kind is nn.AvgPool:
        options["count_include_pad"] = draw(st.booleans())
    return kind(window, **options)


@st.composite
def batch_norms(draw, shape, dtype):
    layer = nn.BatchNorm(shape[-1], momentum=draw(st.sampled_from([0.0, 0.9])), dtype=dtype)
    layer.scale.value[...] = np.linspace(-1, 2, shape[-1])
    layer.shift.value[...] = np.linspace(-0.3, 0.3, shape[-1])
    return layer.train(draw(st.booleans()))


@st.composite
def residuals(draw, shape, dtype, depth):
    body = draw(chains(shape, dtype, depth - 1, 2))
    after = output_shape(body, shape, dtype)
    if after == shape and draw(st.booleans()):
        return nn.Residual(body)
    if after[:-1] == shape[:-1]:
        window = (1,) * (len(shape) - 1)
        return nn.Residual(body, nn.Conv(shape[-1], after[-1], window, rng=2, dtype=dtype))
    return nn.Residual(body, copy.deepcopy(body))


@st.composite
def layers(draw, shape, dtype, depth):
    kinds = ["conv", "conv", "transpose", "pool", "norm", "relu", "relu", "smooth", "dropout"]
    kinds += ["scale", "square", "louder", "patched"]
    kinds += ["sizes", "sizes"]
    kinds += ["residual", "residual", "chain", "concat"] if depth else []
    kind = draw(st.sampled_from(kinds))
    if kind == "conv":
        return draw(convs(shape, dtype))
    if kind == "louder":
        return draw(convs(shape, dtype, Louder))
    if kind == "transpose":
        return draw(convs(shape, dtype, nn.ConvTranspose))
    if kind == "pool":
        return draw(pools(shape, dtype))
    if kind == "norm":
        return draw(batch_norms(shape, dtype))
    if kind == "dropout":
        dropout = draw(st.sampled_from([nn.Dropout, nn.SpatialDropout]))
        layer = dropout(draw(st.sampled_from([0.0, 0.4])), seed=draw(integers(0, 9)))
        return layer.train(draw(st.booleans()))
    if kind == "residual":
        return draw(residuals(shape, dtype, depth))
    if kind == "sizes":
        return draw(sizes(shape, dtype))
    if kind == "concat":
        return draw(concats(shape, dtype, depth))
    if kind == "chain":
        return draw(chains(shape, dtype, depth - 1, 2))
    if kind == "scale":
        return Scale(shape[-1], dtype)
    if kind == "patched":
        return patched(draw(st.sampled_from([nn.ReLU, nn.Tanh]))())
    smooth = [nn.Sigmoid, nn.Tanh, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Softplus]
    smooth += [nn.Hardswish, nn.Identity]
    return {"relu": nn.ReLU, "square": Square}.get(kind, draw(st.sampled_from(smooth)))()


@st.composite
def sizes(draw, shape, dtype):
    """A layer that normalises images, or changes their size."""
    kinds = [nn.AdaptiveAvgPool(2), nn.AdaptiveMaxPool(1), nn.Upsample(2), nn.Pad(1, "reflect")]
    kinds += [nn.Upsample(2, mode="bilinear"), nn.LayerNorm(shape[-1], dtype=dtype)]
    kinds += [nn.GroupNorm(shape[-1], shape[-1], dtype=dtype), nn.AdaptiveMaxPool(3)]
    return draw(st.sampled_from(kinds))


@st.composite
def concats(draw, shape, dtype, depth):
    """Two or three branches, of which some leave the size as it is."""
    branches = [nn.Identity(), draw(chains(shape, dtype, depth - 1, 2))]
    window = (1,) * (len(shape) - 1)
    branches.append(nn.Conv(shape[-1], 2, window, rng=4, dtype=dtype))
    if output_shape(branches[1], shape, dtype)[:-1] != shape[:-1]:
        del branches[1]
    return nn.Concat(*branches)


def output_shape(layer, shape, dtype):
    return layer.infer(np.zeros((1, *shape), dtype)).shape[1:]


def fits(layer, shape, dtype):
    """The shape of its output, or None where the geometry is impossible or large."""
    try:
        after = output_shape(layer, shape, dtype)
    except ValueError:
        return None
    return after if math.prod(after) <= 1500 else None


@st.composite
def chains(draw, shape, dtype, depth=2, most=4):
    """Layers in a Sequential; `shape` is that of one image."""
    found = []
    for _ in range(draw(integers(1, most))):
        layer = draw(layers(shape, dtype, depth))
        after = fits(layer, shape, dtype)
        if after is not None:
            found.append(layer)
            shape = after
    return nn.Sequential(*(found or [nn.ReLU()]))


@st.composite
def networks(draw):
    """A model, the shape of its images, and a loss."""
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    sizes = draw(st.sampled_from([(5, 6), (7, 7), (4, 9), (8, 8), (11,), (6,), (3, 4, 3), (1, 1)]))
    shape = (*sizes, draw(st.sampled_from([1, 1, 2, 3, 4])))
    model = draw(chains(shape, dtype))
    after, found = output_shape(model, shape, dtype), [*model.layers]
    head = draw(st.sampled_from(["flatten", "global", "none"]))
    if head == "none":
        own = draw(st.booleans())
        found.append(Scale(after[-1], dtype) if own else nn.BatchNorm(after[-1], dtype=dtype))
        loss = draw(st.sampled_from([nn.MeanSquaredError(), Absolute()]))
        return nn.Sequential(*found), shape, loss
    outputs = draw(integers(1, 5))
    found.append(nn.Flatten() if head == "flatten" else nn.GlobalAvgPool())
    inputs = math.prod(after) if head == "flatten" else after[-1]
    if draw(st.booleans()):
        found.append(nn.Dense(inputs, 7, rng=3, dtype=dtype))
        found.append(draw(st.sampled_from([nn.ReLU, nn.Tanh]))())
        inputs = 7
    found.append(nn.Dense(inputs, outputs, rng=3, dtype=dtype, bias=draw(st.booleans())))
    losses = [nn.MeanSquaredError(), nn.SoftmaxCrossEntropy(), nn.BinaryCrossEntropy(), Absolute()]
    return nn.Sequential(*found), shape, draw(st.sampled_from(losses))


def optimizers(draw):
    """A function that makes an optimizer for a model."""
    lr = draw(st.sampled_from([0.01, 0.1]))
    decay = draw(st.sampled_from([0.0, 0.02]))
    kind = draw(st.sampled_from(["sgd", "momentum", "nesterov", "adam", "own"]))
    return {
        "sgd": lambda p: nn.SGD(p, lr=lr, weight_decay=decay),
        "momentum": lambda p: nn.SGD(p, lr=lr, momentum=0.9, weight_decay=decay),
        "nesterov": lambda p: nn.SGD(p, lr=lr, momentum=0.8, nesterov=True, weight_decay=decay),
        "adam": lambda p: nn.Adam(p, lr=lr, weight_decay=decay),
        "own": lambda p: Signs(p, lr=lr),
    }[kind]


def images(model, shape, m, seed=0):
    """A batch for a model."""
    dtype = model.parameters()[0].dtype
    return np.random.default_rng(seed).normal(size=(m, *shape)).astype(dtype)


def labels(loss, z_shape, seed=0):
    """Labels that a loss takes for outputs of a shape."""
    rng = np.random.default_rng(seed)
    if isinstance(loss, nn.SoftmaxCrossEntropy):
        return rng.integers(0, z_shape[1], z_shape[0])
    if isinstance(loss, nn.BinaryCrossEntropy):
        return rng.integers(0, 2, z_shape)
    if isinstance(loss, Absolute):
        return rng.normal(size=z_shape[0])
    return rng.normal(size=z_shape)


# ------------------------------------------------------------------------------- networks by hand


def small(dtype=np.float32, extra=()):
    """A network of most layers, for images (8, 8, 2); three classes."""
    body = nn.Sequential(
        nn.Conv(6, 6, 3, padding=1, rng=1, dtype=dtype), nn.BatchNorm(6, dtype=dtype)
    )
    return nn.Sequential(
        nn.Conv(2, 6, 3, padding="same", rng=0, dtype=dtype),
        nn.BatchNorm(6, dtype=dtype),
        nn.ReLU(),
        nn.Residual(body),
        nn.ReLU(),
        nn.MaxPool(2),
        nn.Dropout(0.25, seed=5),
        *extra,
        nn.Conv(6, 4, 1, rng=3, dtype=dtype),
        nn.Tanh(),
        nn.AvgPool(2),
        nn.Flatten(),
        nn.Dense(16, 9, rng=4, dtype=dtype),
        nn.ReLU(),
        nn.Dense(9, 3, rng=5, dtype=dtype),
    )


SHAPE, CLASSES = (8, 8, 2), 3


def batch(m=6, seed=0, dtype=np.float32):
    """Images and labels for `small`."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(m, *SHAPE)).astype(dtype), rng.integers(0, CLASSES, m)


def trained(make_optimizer=None, make_model=small):
    """A model, its loss and its optimizer; two calls give twins."""
    model = make_model()
    made = (make_optimizer or (lambda p: nn.SGD(p, lr=0.05, momentum=0.9)))(model.parameters())
    return model, nn.SoftmaxCrossEntropy(), made
