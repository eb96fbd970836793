"""Weights in and out: our own files, PyTorch's, Keras's and ONNX's, against the frameworks."""

import json
import os
import zipfile

import numpy as np
import pytest
from onnx_layers import LAYERS, image, settled

from fastconv import nn, reference

st = pytest.importorskip("safetensors.numpy")
onnx = pytest.importorskip("onnx")
h5py = pytest.importorskip("h5py")

RNG = np.random.default_rng(0)


def small(seed=0, dtype=np.float64, shortcut=True):
    """A network with every kind of weights; the naive loops compute, nothing is compiled."""
    rng = np.random.default_rng(seed)
    body = nn.Sequential(
        nn.Conv(4, 6, 3, padding=1, stride=2, bias=False, rng=rng, dtype=dtype),
        nn.BatchNorm(6, dtype=dtype),
    )
    side = nn.Conv(4, 6, 1, stride=2, bias=False, rng=rng, dtype=dtype)
    model = nn.Sequential(
        nn.Conv(2, 4, 3, padding="same", activation="relu", rng=rng, dtype=dtype),
        nn.Residual(body, nn.Sequential(side, nn.BatchNorm(6, dtype=dtype))),
        nn.ReLU(),
        nn.MaxPool(2),
        nn.Flatten(),
        nn.Dense(12, 3, rng=rng, dtype=dtype),
        ops=reference,
    )
    for array in model.named_buffers().values():
        array[...] = rng.uniform(0.5, 2, array.shape)
    return model


X = RNG.normal(size=(2, 8, 4, 2))


def state(model):
    """A model's weights as PyTorch has them, by the names of a ResNet, for images of 8x4."""
    conv, block, *_, dense = model.layers
    found = {"conv1.weight": conv.w.value, "conv1.bias": conv.b.value}
    parts = {"layer1.conv": block.body.layers[0], "layer1.bn": block.body.layers[1],
             "layer1.downsample.0": block.shortcut.layers[0],
             "layer1.downsample.1": block.shortcut.layers[1]}  # fmt: skip
    for name, layer in parts.items():
        if isinstance(layer, nn.Conv):
            found[f"{name}.weight"] = layer.w.value
        else:
            found |= {f"{name}.weight": layer.scale.value, f"{name}.bias": layer.shift.value,
                      f"{name}.running_mean": layer.running_mean,
                      f"{name}.running_var": layer.running_variance,
                      f"{name}.num_batches_tracked": np.array(3)}  # fmt: skip
    found = {k: np.moveaxis(a, (3, 2), (0, 1)) if a.ndim == 4 else a for k, a in found.items()}
    rows = dense.w.value.reshape(2, 1, 6, 3)  # of h, w, c: of c, h, w there
    found["fc.weight"] = np.moveaxis(rows, 2, 0).reshape(12, 3).T
    found["fc.bias"] = dense.b.value
    return {name: np.ascontiguousarray(array) for name, array in found.items()}


def pytorch_net():
    """What `small` is, in PyTorch; it is compared where PyTorch is installed."""
    torch = pytest.importorskip("torch")
    make = torch.nn

    class Block(make.Module):
        def __init__(self):
            super().__init__()
            self.conv = make.Conv2d(4, 6, 3, padding=1, stride=2, bias=False)
            self.bn = make.BatchNorm2d(6)
            self.downsample = make.Sequential(
                make.Conv2d(4, 6, 1, stride=2, bias=False), make.BatchNorm2d(6)
            )

        def forward(self, x):
            return torch.relu(self.bn(self.conv(x)) + self.downsample(x))

    class Net(make.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = make.Conv2d(2, 4, 3, padding=1)
            self.layer1 = Block()
            self.fc = make.Linear(12, 3)

        def forward(self, x):
            x = make.functional.max_pool2d(self.layer1(torch.relu(self.conv1(x))), 2)
            return self.fc(x.flatten(1))

    torch.manual_seed(3)
    net = Net()
    for module in net.modules():
        if isinstance(module, make.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
            make.init.uniform_(module.weight)
    return net.double().eval()


def outputs(net, x=X):
    import torch

    with torch.no_grad():
        return net(torch.from_numpy(x).movedim(-1, 1)).numpy()


def pytorch_file(net, path):
    st.save_file({name: array.numpy() for name, array in net.state_dict().items()}, path)
    return path


# Our own ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_our_own_files_go_round_to_the_bit(suffix, tmp_path):
    model, other = small(1), small(2)
    path = tmp_path / f"weights.{suffix}"
    model.save_weights(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    other.load_weights(path)
    np.testing.assert_array_equal(other.predict(X), model.predict(X))
    before = path.read_bytes()
    model.save_weights(path)
    assert path.read_bytes() == before


def test_a_whole_model_s_file_has_its_weights(tmp_path):
    small(1).save(tmp_path / "model.npz")
    other = small(2)
    other.load_weights(tmp_path / "model.npz")
    np.testing.assert_array_equal(other.predict(X), small(1).predict(X))


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_another_model_s_weights_change_nothing(suffix, tmp_path):
    path = tmp_path / f"weights.{suffix}"
    nn.Sequential(nn.Dense(3, 2)).save_weights(path)
    model = small()
    with pytest.raises(ValueError, match=path.name):
        model.load_weights(path)
    np.testing.assert_array_equal(model.predict(X), small().predict(X))


def test_errors_name_the_path(tmp_path):
    model = small()
    for call in (model.save_weights, model.load_weights):
        with pytest.raises(ValueError, match=r"path: its name must end with .*'a\.pth'"):
            call("a.pth")
    for name in ("no.npz", "no.safetensors", "no.keras", "no.weights.h5"):
        with pytest.raises(FileNotFoundError, match=name):
            model.load_weights(tmp_path / name)
        (tmp_path / name).write_bytes(b"PK\x03\x04 not what it says" * 4)
        with pytest.raises(ValueError, match=name):
            model.load_weights(tmp_path / name)


# PyTorch ----------------------------------------------------------------------------------------


def test_a_state_dict_is_turned_into_our_order(tmp_path):
    model, other, path = small(1), small(2), tmp_path / "net.safetensors"
    st.save_file(state(model), path)
    other.load_weights(path, input_shape=(8, 4, 2))
    np.testing.assert_array_equal(other.predict(X), model.predict(X))


def test_a_state_dict_gives_pytorch_s_outputs(tmp_path):
    net, model = pytorch_net(), small()
    model.load_weights(pytorch_file(net, tmp_path / "a.safetensors"), input_shape=(8, 4, 2))
    np.testing.assert_allclose(model.predict(X), outputs(net), rtol=1e-12)


def test_the_shape_is_taken_from_the_model_where_it_is_known(tmp_path):
    source, model, path = small(1), small(2), tmp_path / "net.safetensors"
    st.save_file(state(source), path)
    with pytest.raises(ValueError, match=r"^input_shape: give the shape of one image"):
        model.load_weights(path)
    with pytest.raises(ValueError, match=r"^input_shape: \(8, 4, 3\) does not fit"):
        model.load_weights(path, input_shape=(8, 4, 3))
    np.testing.assert_array_equal(model.predict(X), small(2).predict(X))
    model.forward(X)
    model.load_weights(path)
    np.testing.assert_array_equal(model.predict(X), source.predict(X))


def test_modules_at_the_models_own_paths_and_float32_into_float64(tmp_path):
    w = {"0.weight": (4, 1, 3, 3), "0.bias": (4,), "2.weight": (4, 3, 2, 2), "2.bias": (3,),
         "4.weight": (2, 3)}  # fmt: skip
    arrays = {name: RNG.normal(size=shape).astype(np.float32) for name, shape in w.items()}
    model = nn.Sequential(
        nn.Conv(2, 4, 3, groups=2, dtype=np.float64), nn.ReLU(),
        nn.ConvTranspose(4, 3, 2, stride=2, dtype=np.float64), nn.GlobalAvgPool(),
        nn.Dense(3, 2, bias=False, dtype=np.float64), ops=reference,
    )  # fmt: skip
    st.save_file(arrays, tmp_path / "net.safetensors")
    model.load_weights(tmp_path / "net.safetensors")
    conv, _, back, _, dense = model.layers
    np.testing.assert_array_equal(conv.w.value, arrays["0.weight"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(back.w.value, arrays["2.weight"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(dense.w.value, arrays["4.weight"].T)
    assert conv.b.value.tolist() == arrays["0.bias"].tolist()


def test_groups_and_transposed_convolutions_are_pytorch_s(tmp_path):
    make = pytest.importorskip("torch").nn
    net = make.Sequential(
        make.Conv2d(2, 4, 3, groups=2), make.ReLU(), make.ConvTranspose2d(4, 3, 2, stride=2)
    ).double()
    model = nn.Sequential(
        nn.Conv(2, 4, 3, groups=2, dtype=np.float64), nn.ReLU(),
        nn.ConvTranspose(4, 3, 2, stride=2, dtype=np.float64), ops=reference,
    )  # fmt: skip
    model.load_weights(pytorch_file(net, tmp_path / "net.safetensors"))
    np.testing.assert_allclose(model.predict(X), np.moveaxis(outputs(net), 1, -1), rtol=1e-12)


def test_names_are_ordered_by_their_numbers(tmp_path):
    channels = [1] * 12
    convs = {f"features.{i}.weight": np.full((1, 1, 1, 1), i, "f4") for i in range(12)}
    model = nn.Sequential(*(nn.Conv(c, 1, 1, bias=False) for c in channels), nn.ReLU())
    st.save_file(convs, tmp_path / "a.safetensors")
    model.load_weights(tmp_path / "a.safetensors")
    assert [float(p.value.item()) for p in model.parameters()] == list(range(12))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"first.weight": (2, 2, 3, 3), "after.weight": (2, 2, 3, 3)},
         "'after' and 'first' are of one shape, and their names do not tell"),
        ({"conv1.weight": (2, 2, 3, 3)},
         "the model has 2 layers of the kind convolution, the file 1"),
        ({"conv1.weight": (2, 2, 3, 3), "conv2.weight": (2, 2, 5, 5)},
         r"layer 1 \(Conv\): w is \(3, 3, 2, 2\), the file has \(2, 2, 5, 5\)"),
        ({"conv1.weight": (2, 2, 3, 3), "conv2.weight": (2, 2, 3, 3), "conv2.bias": (2,)},
         r"layer 1 \(Conv\): the file has a bias, the layer has none"),
        ({"conv1.weight": (2, 2, 3, 3), "conv2.lora": (2, 2)}, "'conv2.lora' is none of"),
        ({"conv1.bias": (2,)}, "'conv1' has no weight"),
    ],
)  # fmt: skip
def test_what_does_not_belong_to_the_model_is_named(given, says, tmp_path):
    path = tmp_path / "a.safetensors"
    st.save_file({k: np.ones(shape, "f4") for k, shape in given.items()}, path)
    model = nn.Sequential(*(nn.Conv(2, 2, 3, bias=False, rng=0) for _ in range(2)))
    before = [p.value.copy() for p in model.parameters()]
    with pytest.raises(ValueError, match=rf"a\.safetensors: .*{says}"):
        model.load_weights(path)
    for p, old in zip(model.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.value, old)


@pytest.mark.parametrize(("dtype", "nbytes"), [("BF16", 8), ("I8", 4), ("F8_E4M3", 4)])
def test_integers_and_brain_floats_are_refused(dtype, nbytes, tmp_path):
    about = {"0.weight": {"dtype": dtype, "shape": [2, 2], "data_offsets": [0, nbytes]}}
    header = json.dumps(about).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(nbytes))
    with pytest.raises(ValueError, match=r"a\.safetensors: .* the file has .* no floats"):
        nn.Sequential(nn.Dense(2, 2, bias=False)).load_weights(path)


# Keras ------------------------------------------------------------------------------------------


def keras_file(path, layers, **more):
    with h5py.File(path, "w") as file:
        for name, arrays in layers.items():
            for i, array in enumerate(arrays):
                file[f"{name}/vars/{i}"] = array
        file["optimizer/vars/0"] = np.zeros(3)
        for name, link in more.items():
            file[name] = link
    return path


def keras_arrays():
    w1, w2 = RNG.normal(size=(3, 3, 2, 4)), RNG.normal(size=(3, 3, 4, 1))
    return {
        "layers/conv2d": [w1, np.ones(4)],
        "layers/depthwise_conv2d": [w2, np.zeros(4)],
        "layers/batch_normalization": [np.ones(4), np.zeros(4), np.full(4, 0.5), np.full(4, 2.0)],
        "layers/dropout/seed_generator": [np.zeros(2, np.uint32)],
        "layers/dense": [RNG.normal(size=(32, 3)), np.zeros(3)],
    }


def keras_twin():
    return nn.Sequential(
        nn.Conv(2, 4, 3, padding="same", dtype=np.float64),
        nn.Conv(4, 4, 3, padding="same", groups=4, dtype=np.float64),
        nn.BatchNorm(4, dtype=np.float64),
        nn.MaxPool((2, 2)), nn.Flatten(), nn.Dense(32, 3, dtype=np.float64), ops=reference,
    )  # fmt: skip


@pytest.mark.parametrize("suffix", ["weights.h5", "keras"])
def test_keras_files_are_read(suffix, tmp_path):
    arrays, model = keras_arrays(), keras_twin()
    path = keras_file(tmp_path / f"a.{suffix}", arrays)
    if suffix == "keras":
        data = path.read_bytes()
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", "{}")
            archive.writestr("model.weights.h5", data)
    model.load_weights(path)
    conv, depthwise, norm, *_, dense = model.layers
    np.testing.assert_array_equal(conv.w.value, arrays["layers/conv2d"][0])
    np.testing.assert_array_equal(
        depthwise.w.value[:, :, 0], arrays["layers/depthwise_conv2d"][0][..., 0]
    )
    assert norm.running_mean.tolist() == [0.5] * 4
    assert norm.running_variance.tolist() == [2.0] * 4
    np.testing.assert_array_equal(dense.w.value, arrays["layers/dense"][0])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_separable_convolutions_of_keras_are_read(channels, bias, tmp_path):
    sizes, arrays = [(channels, 4), (4, 5)], {}
    for name, (c, f) in zip(["separable_conv2d", "separable_conv2d_1"], sizes, strict=True):
        kernels = [RNG.normal(size=(3, 3, c, 2)), RNG.normal(size=(1, 1, 2 * c, f))]
        arrays[f"layers/{name}"] = kernels + [RNG.normal(size=f)] * bias
    options = {"multiplier": 2, "bias": bias, "dtype": np.float64}
    model = nn.Sequential(*(nn.SeparableConv(c, f, 3, **options) for c, f in sizes), ops=reference)
    model.load_weights(keras_file(tmp_path / "a.weights.h5", arrays))
    for layer, given in zip(model.layers, arrays.values(), strict=True):
        depthwise, pointwise = layer.layers
        # Output c * M + m of the first belongs to channel c.
        np.testing.assert_array_equal(depthwise.w.value[:, :, 0], given[0].reshape(3, 3, -1))
        np.testing.assert_array_equal(pointwise.w.value, given[1])
        if bias:
            np.testing.assert_array_equal(pointwise.b.value, given[2])


def test_two_kernels_that_are_no_separable_convolution_are_refused(tmp_path):
    kernels = [np.zeros((3, 3, 2, 8)), np.zeros((3, 3, 2, 8)), np.zeros(8)]  # ConvLSTM2D
    path = keras_file(tmp_path / "a.weights.h5", {"layers/conv_lstm2d": kernels})
    with pytest.raises(ValueError, match=r"'layers/conv_lstm2d' has 3 arrays: no layer takes them"):
        nn.Sequential(nn.SeparableConv(2, 8, 3)).load_weights(path)


def test_a_separable_convolution_beside_another_of_its_shape_is_refused(tmp_path):
    """Keras names layers by their class: nothing says which of the two comes first."""
    arrays = {
        "layers/conv2d": [np.ones((1, 1, 4, 4)), np.zeros(4)],
        "layers/separable_conv2d": [np.ones((3, 3, 4, 1)), np.zeros((1, 1, 4, 4)), np.zeros(4)],
    }
    model = nn.Sequential(nn.SeparableConv(4, 4, 3), nn.Conv(4, 4, 1))
    before = model.layers[1].w.value.copy()
    with pytest.raises(ValueError, match="are of one shape, and their names do not tell which"):
        model.load_weights(keras_file(tmp_path / "a.weights.h5", arrays))
    np.testing.assert_array_equal(model.layers[1].w.value, before)


def test_keras_files_lead_nowhere_else(tmp_path):
    secret = keras_file(tmp_path / "secret.h5", {"layers/dense": [np.zeros((32, 3)), np.zeros(3)]})
    for link in (h5py.ExternalLink(str(secret), "/layers/dense"), h5py.SoftLink("/layers/conv2d")):
        arrays = {k: v for k, v in keras_arrays().items() if k != "layers/dense"}
        path = keras_file(tmp_path / "a.weights.h5", arrays, **{"layers/dense": link})
        with pytest.raises(ValueError, match=r"a\.weights\.h5: layers/dense is a link, which"):
            keras_twin().load_weights(path)
    path = tmp_path / "b.weights.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/dense/vars")
        group.create_dataset("0", (4,), "f8", external=[(str(secret), 0, 32)])
    with pytest.raises(ValueError, match=r"b\.weights\.h5: .*vars/0 is no array of this file"):
        keras_twin().load_weights(path)


# ONNX -------------------------------------------------------------------------------------------


def types(model):
    return [type(layer).__name__ for _, layer in model.walk() if not layer.children()]


@pytest.mark.parametrize("output", ["logits", "softmax"])
def test_what_to_onnx_writes_comes_back(output, tmp_path):
    model = small()
    model.name = "small"
    model.to_onnx(tmp_path / "a.onnx", input_shape=(8, 4, 2), output=output)
    other = nn.from_onnx(tmp_path / "a.onnx")
    assert isinstance(other, nn.Sequential)
    assert other.name == "small"
    other.ops = reference
    np.testing.assert_allclose(other.predict(X), model.predict(X), rtol=1e-12)
    assert types(other) == ["Conv", "ReLU", "Conv", "BatchNorm", "Conv", "BatchNorm", "ReLU",
                            "MaxPool", "Flatten", "Dense"]  # fmt: skip
    other.save(tmp_path / "b.npz")
    np.testing.assert_array_equal(
        nn.Sequential.load(tmp_path / "b.npz", ops=reference).predict(X), other.predict(X)
    )


# What other layers make of it: the same arithmetic.
READ_AS = {
    "adaptive_max": ["MaxPool"],  # where windows do not overlap
    "adaptive_mean": ["AvgPool"],
    "conv_full_groups_relu": ["Conv", "ReLU"],
    "conv_reflect": ["Pad", "Conv"],
    "conv_symmetric": ["Pad", "Conv"],
    "conv_wrap": ["Pad", "Conv"],
    "dropout": ["Identity"],
    "flatten_rows": ["Identity"],
    "spatial_dropout": ["Identity"],
    "transpose_gaps": ["ConvTranspose", "ReLU"],
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_comes_back_to_the_bit(name, tmp_path):
    layer, shape = LAYERS[name]
    model, x = settled(nn.Sequential(layer)), image(*shape)
    model.to_onnx(tmp_path / "a.onnx", input_shape=shape)
    other = nn.from_onnx(tmp_path / "a.onnx")
    assert types(other) == READ_AS.get(name, types(model))
    y = model.predict(x)
    assert other.predict(x).dtype == y.dtype
    np.testing.assert_array_equal(other.predict(x), y)
    other.to_onnx(tmp_path / "b.onnx", input_shape=shape)
    np.testing.assert_array_equal(nn.from_onnx(tmp_path / "b.onnx").predict(x), y)


def mixed(**f8):
    """Layers of several nodes, one after the other and in branches."""
    normed = (nn.GroupNorm(2, 4, **f8), nn.GELU(), nn.LayerNorm(4, epsilon=1e-3, **f8), nn.SiLU())
    return nn.Sequential(
        nn.LayerNorm(2, **f8), nn.Conv(2, 4, 3, padding=1, rng=0, **f8), nn.InstanceNorm(4, **f8),
        nn.Residual(nn.Sequential(*normed)),
        nn.Concat(nn.Sequential(nn.SiLU(), nn.SiLU()), nn.GELU(), nn.ELU(0.3)),
        nn.Residual(nn.Dropout(0.5)), nn.Pad((1, 2), "symmetric"), nn.Pad(1, "wrap"),
        nn.AdaptiveMaxPool((5, 3)), nn.AdaptiveAvgPool((3, 2)), nn.Flatten(),
        nn.LayerNorm(72, **f8), nn.Dense(72, 4, rng=0, **f8), nn.GroupNorm(2, 4, **f8), nn.SiLU(),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layers_of_several_nodes_come_back_among_others(dtype, tmp_path):
    model, x = settled(mixed(dtype=dtype)), X.astype(dtype)
    model.to_onnx(tmp_path / "a.onnx", input_shape=(8, 4, 2))
    other = nn.from_onnx(tmp_path / "a.onnx")
    assert types(other) == [kind.replace("Dropout", "Identity") for kind in types(model)]
    np.testing.assert_array_equal(other.predict(x), model.predict(x))


@pytest.mark.parametrize("window", [(2, 2), (3, 2), (3, 5), (5, 5)], ids=str)
@pytest.mark.parametrize("padding", [0, 1])
def test_partial_windows_come_back(window, padding, tmp_path):
    """They are pads in the file, which let no window start behind the image."""
    k, stride = window
    options = {"stride": stride, "padding": padding, "ceil_mode": True}
    counted = nn.AvgPool(k, **options, count_include_pad=True)
    for pool in (nn.MaxPool(k, **options), nn.AvgPool(k, **options), counted):
        model = nn.Sequential(nn.Conv(1, 2, 1, rng=0), pool)
        model.to_onnx(tmp_path / "a.onnx")
        other = nn.from_onnx(tmp_path / "a.onnx")
        for n in range(k, 13):
            x = image(n, 17 - n, 1)
            np.testing.assert_array_equal(other.predict(x), model.predict(x))


@pytest.mark.filterwarnings("ignore")
def test_what_pytorch_exports(tmp_path):
    torch, net = pytest.importorskip("torch"), pytorch_net()
    torch.onnx.export(net, (torch.zeros(2, 2, 8, 4, dtype=torch.float64),), tmp_path / "a.onnx",
                      dynamo=False, dynamic_axes={"x": {0: "m"}}, input_names=["x"])  # fmt: skip
    model = nn.from_onnx(tmp_path / "a.onnx")
    model.ops = reference
    np.testing.assert_allclose(model.predict(X), outputs(net), rtol=1e-12)


@pytest.mark.filterwarnings("ignore")
def test_pytorch_s_activations_and_norms(tmp_path):
    """Layers of several nodes, and a LayerNorm of rows that count channels first."""
    torch = pytest.importorskip("torch")
    L = torch.nn
    net = L.Sequential(
        L.Conv2d(2, 4, 1), L.GELU(), L.GroupNorm(2, 4), L.SiLU(), L.InstanceNorm2d(4, affine=True),
        L.Hardswish(), L.ELU(0.3), L.AdaptiveAvgPool2d(2), L.Flatten(), L.LayerNorm(16),
        L.Linear(16, 3),
    ).double().eval()  # fmt: skip
    for i, p in enumerate(net.parameters()):
        torch.nn.init.normal_(p, generator=torch.Generator().manual_seed(i))
    torch.onnx.export(net, (torch.zeros(2, 2, 8, 4, dtype=torch.float64),), tmp_path / "a.onnx",
                      dynamo=False, opset_version=17, dynamic_axes={"x": {0: "m"}},
                      input_names=["x"])  # fmt: skip
    model = nn.from_onnx(tmp_path / "a.onnx")
    assert types(model) == ["Conv", "GELU", "GroupNorm", "SiLU", "InstanceNorm", "Hardswish", "ELU",
                            "AvgPool", "Flatten", "LayerNorm", "Dense"]  # fmt: skip
    np.testing.assert_allclose(model.predict(X), outputs(net), rtol=1e-6, atol=1e-8)


def node(op, inputs, outputs, **attributes):
    return onnx.helper.make_node(op, inputs, outputs, name=f"the {op}", **attributes)


def branching():
    """A step of U-Net, a cell of Inception, a block of DenseNet, and what leads to sizes."""
    rng, f8 = np.random.default_rng(5), {"dtype": np.float64}
    down = nn.Sequential(nn.MaxPool(2), nn.Conv(2, 3, 1, rng=rng, **f8), nn.Upsample(2))
    cell = nn.Concat(
        nn.Conv(5, 2, 1, rng=rng, **f8), nn.Conv(5, 2, 3, padding=1, rng=rng, **f8), nn.Identity()
    )
    return nn.Sequential(
        nn.Concat(nn.Identity(), down), nn.LeakyReLU(0.2), cell,
        nn.Concat(nn.Identity(), nn.Conv(9, 3, 3, padding="same", rng=rng, **f8)),
        nn.PixelShuffle(2), nn.Pad(1, mode="reflect"), nn.Upsample(2, mode="bilinear"),
        nn.SeparableConv(3, 4, 3, rng=rng, **f8), nn.Hardswish(), nn.GlobalMaxPool(),
        nn.Dense(4, 2, rng=rng, **f8), ops=reference,
    )  # fmt: skip


def test_networks_with_branches_come_back(tmp_path):
    model = branching()
    model.to_onnx(tmp_path / "a.onnx", input_shape=(8, 4, 2))
    other = nn.from_onnx(tmp_path / "a.onnx")
    other.ops = reference
    np.testing.assert_allclose(other.predict(X), model.predict(X), rtol=1e-6)
    assert types(other).count("Identity") == 3
    assert sum(p.size for p in other.parameters()) == sum(p.size for p in model.parameters())


def value(name, shape):
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, shape)


def graph_file(path, nodes, rank=2, **constants):
    tensors = [onnx.numpy_helper.from_array(np.asarray(a), k) for k, a in constants.items()]
    graph = onnx.helper.make_graph(
        nodes, "g", [value("x", ["m", 2, 8, 4])], [value("y", [None] * rank)], tensors,
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


def run(path, x=X):
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(onnx.load(path)).run(None, {"x": np.moveaxis(x, -1, 1).copy()})[0]


def lenet():
    w1, w2, w3 = RNG.normal(size=(3, 2, 3, 3)), RNG.normal(size=(12, 5)), RNG.normal(size=(4, 5))
    return [
        node("Conv", ["x", "w1", "b1"], ["c"], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        node("Tanh", ["c"], ["t"]),
        node("AveragePool", ["t"], ["p"], kernel_shape=[4, 2], strides=[4, 2]),
        node("Reshape", ["p", "rows"], ["f"]),
        node("MatMul", ["f", "w2"], ["d"]),
        node("Add", ["d", "b2"], ["e"]),
        node("Sigmoid", ["e"], ["s"]),
        node("Gemm", ["s", "w3", "b3"], ["z"], transB=1),
        node("Softmax", ["z"], ["y"], axis=1),
    ], {"w1": w1, "b1": np.ones(3), "rows": np.array([-1, 12]), "w2": w2, "b2": np.arange(5.0),
        "w3": w3, "b3": np.zeros(4)}  # fmt: skip


def resnet():
    kernels = [RNG.normal(size=s) for s in ((4, 2, 3, 3), (4, 4, 3, 3), (4, 4, 3, 3), (6, 4, 1, 1))]
    names = dict(zip(("w0", "w1", "w2", "w3"), kernels, strict=True))
    norm = {"s": np.ones(4) * 1.5, "h": np.arange(4.0), "m": np.ones(4) * 0.1, "v": np.ones(4) * 2}
    return [
        node("Conv", ["x", "w0"], ["a"], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["r"]),
        node("Conv", ["r", "w1"], ["b"], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["b", "s", "h", "m", "v"], ["n"]),
        node("Relu", ["n"], ["n2"]),
        node("Conv", ["n2", "w2"], ["c"], pads=[1, 1, 1, 1]),
        node("Add", ["r", "c"], ["d"]),
        node("Relu", ["d"], ["d2"]),
        node("MaxPool", ["d2"], ["e"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Conv", ["e", "w3"], ["f"]),
        node("GlobalAveragePool", ["f"], ["g"]),
        node("Flatten", ["g"], ["k"]),
        node("Gemm", ["k", "w4"], ["y"]),
    ], names | norm | {"w4": RNG.normal(size=(6, 3))}  # fmt: skip


@pytest.mark.parametrize("make", [lenet, resnet])
def test_networks_of_other_frameworks(make, tmp_path):
    nodes, constants = make()
    path = graph_file(tmp_path / "a.onnx", nodes, **constants)
    model = nn.from_onnx(path)
    model.ops = reference
    z = model.predict(X)
    if make is lenet:
        z = nn.SoftmaxCrossEntropy().predict(z)
    np.testing.assert_allclose(z, run(path), rtol=1e-10)
    if make is resnet:
        assert types(model).count("Conv") == 4
        block = model.layers[2]
        assert isinstance(block, nn.Residual)
        assert block.shortcut is None


def vgg():
    """Conv-ReLU-Conv-ReLU-MaxPool twice, then Flatten and two dense layers, as exporters write."""
    nodes, constants, x = [], {}, "x"
    for i, (channels, filters) in enumerate([(2, 4), (4, 4), (4, 6), (6, 6)]):
        constants[f"w{i}"] = RNG.normal(size=(filters, channels, 3, 3)) / 3
        constants[f"b{i}"] = RNG.normal(size=filters)
        nodes += [
            node("Conv", [x, f"w{i}", f"b{i}"], [f"c{i}"], pads=[1] * 4, strides=[1, 1],
                 dilations=[1, 1], group=1, kernel_shape=[3, 3]),
            node("Relu", [f"c{i}"], [x := f"r{i}"]),
        ]  # fmt: skip
        if i % 2:
            pool = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0] * 4, "ceil_mode": 0}
            nodes.append(node("MaxPool", [x], [f"p{i}"], **pool))
            x = f"p{i}"
    constants |= {"w4": RNG.normal(size=(5, 12)), "b4": RNG.normal(size=5), "ratio": np.array(0.5)}
    constants |= {"w5": RNG.normal(size=(3, 5)), "b5": RNG.normal(size=3), "off": np.array(False)}
    return [
        *nodes,
        node("Flatten", [x], ["f"], axis=1),
        node("Gemm", ["f", "w4", "b4"], ["d"], transB=1, alpha=1.0, beta=1.0),
        node("Relu", ["d"], ["e"]),
        node("Dropout", ["e", "ratio", "off"], ["k"]),
        node("Gemm", ["k", "w5", "b5"], ["y"], transB=1, alpha=1.0, beta=1.0),
    ], constants


def test_a_network_like_vgg(tmp_path):
    nodes, constants = vgg()
    path = graph_file(tmp_path / "a.onnx", nodes, **constants)
    model = nn.from_onnx(path)
    half = ["Conv", "ReLU", "Conv", "ReLU", "MaxPool"]
    assert types(model) == [*half, *half, "Flatten", "Dense", "ReLU", "Dense"]
    expected = run(path)
    assert expected.std() > 0.1
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-12, atol=1e-13)


def norms():
    """GELU, SiLU and normalisations as other exporters write them."""
    c = {f"{k}{n}": RNG.normal(size=n) for k in ("s", "h") for n in (2, 4)}
    column = {"s": c["s4"].reshape(4, 1, 1), "h": c["h4"].reshape(4, 1, 1)}
    return [
        node("InstanceNormalization", ["x", "s2", "h2"], ["a"], epsilon=1e-3),
        node("Conv", ["a", "w"], ["b"]),
        node("Div", ["b", "root"], ["g1"]),
        node("Erf", ["g1"], ["g2"]),
        node("Add", ["one", "g2"], ["g3"]),
        node("Mul", ["half", "b"], ["g4"]),
        node("Mul", ["g4", "g3"], ["g"]),
        node("Transpose", ["g"], ["last"], perm=[0, 2, 3, 1]),
        node("LayerNormalization", ["last", "s4"], ["l"], axis=3),
        node("Transpose", ["l"], ["first"], perm=[0, 3, 1, 2]),
        node("Shape", ["first"], ["shape"]),
        node("Reshape", ["first", "groups"], ["n1"]),
        node("InstanceNormalization", ["n1", "ones", "zeros"], ["n2"]),
        node("Reshape", ["n2", "shape"], ["n3"]),
        node("Mul", ["n3", "s"], ["n4"]),
        node("Add", ["n4", "h"], ["n5"]),
        node("Sigmoid", ["n5"], ["i"]),
        node("Mul", ["i", "n5"], ["j"]),
        node("Add", ["j", "b"], ["y"]),
    ], c | column | {
        "w": RNG.normal(size=(4, 2, 1, 1)), "root": np.array(np.sqrt(2)), "one": np.array(1.0),
        "half": np.array([0.5]), "groups": np.array([0, 2, -1]), "ones": np.ones(2),
        "zeros": np.zeros(2),
    }  # fmt: skip


def test_layers_of_several_nodes_from_other_exporters(tmp_path):
    nodes, constants = norms()
    path = graph_file(tmp_path / "a.onnx", nodes, 4, **constants)
    model = nn.from_onnx(path)
    assert types(model) == ["InstanceNorm", "Conv", "GELU", "LayerNorm", "GroupNorm", "SiLU"]
    np.testing.assert_allclose(
        model.predict(X), np.moveaxis(run(path), 1, -1), rtol=1e-6, atol=1e-6
    )
    constants["one"] = np.array(1.5)  # no GELU
    graph_file(path, nodes, 4, **constants)
    with pytest.raises(ValueError, match=r"node 'the Div' \(Div\): no layer stands for it"):
        nn.from_onnx(path)


def test_an_imported_network_trains_on(tmp_path):
    """Frozen and fine-tuned: a new last layer learns, then all of it does."""
    nodes, constants = resnet()
    model = nn.from_onnx(graph_file(tmp_path / "a.onnx", nodes, **constants))
    tuned = nn.Sequential(*model.layers[:-1], nn.Dense(6, 2, rng=0, dtype=np.float64))
    x = RNG.normal(size=(24, 8, 4, 2))
    y = (x.mean(axis=(1, 2, 3)) > 0).astype(int)
    frozen = [p.value.copy() for p in tuned.parameters()[:-2]]
    loss = nn.SoftmaxCrossEntropy()
    head = nn.fit(tuned, loss, nn.Adam(tuned.parameters()[-2:], 0.05), x, y, epochs=20)
    for p, before in zip(tuned.parameters(), frozen, strict=False):
        np.testing.assert_array_equal(p.value, before)
    whole = nn.fit(tuned, loss, nn.Adam(tuned.parameters(), 0.01), x, y, epochs=20)
    assert whole["loss"][-1] < head["loss"][-1] < head["loss"][0]


@pytest.mark.parametrize(
    ("nodes", "says"),
    [
        ([node("Cos", ["x"], ["y"])], r"node 'the Cos' \(Cos\): no layer stands for it"),
        ([node("Transpose", ["x"], ["y"], perm=[0, 3, 2, 1])],
         "the permutation .* is not understood"),
        ([node("Relu", ["x"], ["a"]), node("Softmax", ["a"], ["b"]), node("Relu", ["b"], ["y"])],
         "something follows the softmax"),
        ([node("Conv", ["x", "x"], ["y"])], "no layer stands for it"),
        ([node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], auto_pad="SAME_LOWER")],
         "auto_pad SAME_LOWER is not understood"),
        ([node("Constant", [], ["s"], value=onnx.numpy_helper.from_array(np.ones(4))),
          node("LayerNormalization", ["x", "s"], ["y"])],
         "images with channels last, or rows, are needed"),
        ([node("MaxPool", ["x"], ["y"], kernel_shape=[4, 4], pads=[0, 0, 3, 3])],
         "the pads .* of a window .4, 4. are not understood"),
        ([node("Sigmoid", ["x"], ["s"]), node("Mul", ["s", "s"], ["y"])],
         r"node 'the Mul' \(Mul\): no layer stands for it"),
        ([node("Add", ["x", "x"], ["y"])], "it adds a result to itself"),
        ([node("Flatten", ["x"], ["y"])], "it ends with images that are flattened channels first"),
        ([node("Identity", ["x"], ["y"])], "it has no layer"),
    ],
)  # fmt: skip
def test_what_no_layer_stands_for_is_named(nodes, says, tmp_path):
    path = graph_file(tmp_path / "a.onnx", nodes, 2 if nodes[0].op_type == "Flatten" else 4)
    with pytest.raises(ValueError, match=rf"a\.onnx: .*{says}"):
        nn.from_onnx(path)


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.onnx: no such file"):
        nn.from_onnx(tmp_path / "a.onnx")
    model = small()
    model.to_onnx(tmp_path / "whole.onnx", input_shape=(8, 4, 2))
    whole = (tmp_path / "whole.onnx").read_bytes()
    for data in (b"", b"not a network", whole[: len(whole) // 2], os.urandom(300)):
        (tmp_path / "b.onnx").write_bytes(data)
        with pytest.raises(ValueError, match=r"b\.onnx"):
            nn.from_onnx(tmp_path / "b.onnx")


# Damage -----------------------------------------------------------------------------------------


def damaged(data, rng):
    """Cut short, with other bytes at the front or anywhere, or with some more."""
    found, kind = bytearray(data), rng.integers(4)
    if kind == 0:
        return bytes(found[: rng.integers(len(found))])
    if kind == 3:
        at = rng.integers(len(found))
        found[at:at] = rng.bytes(int(rng.integers(1, 9)))
    else:
        for _ in range(rng.integers(1, 9)):
            found[rng.integers(600 if kind == 1 else len(found))] = rng.integers(256)
    return bytes(found)


@pytest.mark.parametrize("name", ["t.safetensors", "k.weights.h5", "k.keras", "a.onnx"])
def test_a_damaged_file_is_read_or_refused_by_its_name(name, tmp_path):
    path = tmp_path / name
    if name == "t.safetensors":
        st.save_file(state(small(1)), path)
    elif name == "a.onnx":
        nodes, constants = lenet()
        graph_file(path, nodes, **constants)
    else:
        keras_file(path, keras_arrays())
    data, rng = path.read_bytes(), np.random.default_rng(0)
    if name == "k.keras":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model.weights.h5", data)
        data = path.read_bytes()
    refused = 0
    for _ in range(60):
        path.write_bytes(damaged(data, rng))
        try:
            if name == "a.onnx":
                nn.from_onnx(path)
            elif name == "t.safetensors":
                small().load_weights(path, input_shape=(8, 4, 2))
            else:
                keras_twin().load_weights(path)
        except ValueError as error:
            assert name in str(error)  # noqa: PT017 (most are refused, not all)
            refused += 1
    assert refused > 20
