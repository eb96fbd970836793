"""Data that are read as needed, and bytes with a scale: the bits of float32 arrays in memory."""

import functools

import h5py
import numpy as np
import pytest
import zarr
from PIL import Image

from fastconv import nn
from fastconv.examples import ImageFiles, RandomFlip
from fastconv.nn import sources

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (37, 6, 5, 1), np.uint8)
Y = RNG.integers(0, 3, 37)
FLOATS = X.astype(np.float32) * np.float32(1 / 255)
SCALE = {"scale": 1 / 255}


class Lazy:
    """What a user writes: `shape`, `dtype` and one kind of index."""

    def __init__(self, array, kinds):
        self.array, self.kinds, self.read = array, kinds, 0
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, index):
        if not isinstance(index, self.kinds):
            raise TypeError(f"no index {index!r}")
        found = self.array[index]
        self.read += 1 if isinstance(index, int) else len(found)
        return found


def memmap(folder, x):
    np.save(folder / "x.npy", x)
    return np.load(folder / "x.npy", mmap_mode="r")


def hdf5(folder, x):
    with h5py.File(folder / "x.h5", "w") as file:
        file.create_dataset("x", data=x, chunks=(4, *x.shape[1:]))
    return h5py.File(folder / "x.h5")["x"]


def zarr_array(folder, x):
    stored = zarr.create_array(
        folder / "x.zarr", shape=x.shape, dtype=x.dtype, chunks=(4, *x.shape[1:])
    )
    stored[...] = x
    return zarr.open_array(folder / "x.zarr", mode="r")


def png_files(folder, x):
    for i, image in enumerate(x):
        Image.fromarray(image[..., 0]).save(folder / f"{i:02}.png")
    return ImageFiles(sorted(folder.glob("*.png")))


KINDS = {
    "memmap": memmap,
    "h5py": hdf5,
    "zarr": zarr_array,
    "png": png_files,
    "rows by number": lambda _, x: Lazy(x, int),
    "slices and numbers": lambda _, x: Lazy(x, (int, slice)),
    "arrays of numbers": lambda _, x: Lazy(x, np.ndarray),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def network(outputs=3):
    return nn.Sequential(
        nn.Conv(1, 4, 3, activation="relu", rng=0),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Dense(48, outputs, rng=1),
    )


def train(x, y=Y, model=None, **options):
    model = model or network()
    options = {"epochs": 2, "batch_size": 8, "seed": 5} | options
    optimizer = nn.Adam(model.parameters(), lr=0.01)
    return model, nn.fit(model, nn.SoftmaxCrossEntropy(), optimizer, x, y, **options)


def assert_same(one, other):
    (model, history), (model2, history2) = one, other
    for a, b in zip(model.parameters(), model2.parameters(), strict=True):
        np.testing.assert_array_equal(a.value, b.value)
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert history[name] == history2[name]


@functools.cache
def in_memory():
    return train(FLOATS, augment=RandomFlip(), validation=(FLOATS[:20], Y[:20]))


@each_kind
def test_training_on_stored_bytes_has_the_bits_of_floats_in_memory(kind, tmp_path):
    (tmp_path / "v").mkdir()
    stored, held = KINDS[kind](tmp_path, X), KINDS[kind](tmp_path / "v", X[:20])
    found = train(stored, augment=RandomFlip(), validation=(held, Y[:20]), **SCALE)
    assert_same(found, in_memory())


@each_kind
def test_evaluate_and_predict_read_as_needed(kind, tmp_path):
    stored, model, loss = KINDS[kind](tmp_path, X), network(), nn.SoftmaxCrossEntropy()
    z = model.predict(FLOATS, 8)
    np.testing.assert_array_equal(model.predict(stored, 8, **SCALE), z)
    assert nn.evaluate(model, loss, stored, Y, 8, **SCALE) == nn.evaluate(model, loss, FLOATS, Y, 8)


def test_in_order(tmp_path):
    stored = zarr_array(tmp_path, X)
    assert_same(train(stored, shuffle=False, **SCALE), train(FLOATS, shuffle=False))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, ">u2", np.int64, bool, np.float16, float])
def test_numbers_of_every_kind_with_a_scale(dtype):
    x = (X > 99 if dtype is bool else X // 2).astype(dtype)
    expected = x.astype(np.float32) * np.float32(0.3)
    assert_same(train(x, scale=0.3, epochs=1), train(expected, epochs=1))
    np.testing.assert_array_equal(network().predict(x, scale=0.3), network().predict(expected))


def test_transform_after_scale(tmp_path):
    def standardised(x):
        return (x - 0.5) / 0.25  # float64, were it not for the scale

    def bytes_to_floats(x):
        assert x.dtype == np.uint8
        return x / 255  # float64: what comes back is converted

    both = {"scale": 1 / 255, "transform": standardised}
    assert_same(train(X, **both), train((FLOATS - np.float32(0.5)) / np.float32(0.25)))
    alone = {"transform": bytes_to_floats}
    expected = (X / 255).astype(np.float32)
    held = {"validation": (X, Y)}
    assert_same(train(X, **held, **alone), train(expected, validation=(expected, Y)))
    model = network()
    np.testing.assert_array_equal(model.predict(X, **alone), model.predict(expected))
    loss = nn.SoftmaxCrossEntropy()
    assert nn.evaluate(model, loss, X, Y, **alone) == nn.evaluate(model, loss, expected, Y)


def test_a_float64_network_gets_float64():
    model = nn.Sequential(nn.Flatten(), nn.Dense(30, 3, rng=0, dtype=np.float64))
    np.testing.assert_array_equal(model.predict(X, scale=0.3), model.predict(X * 0.3))


def test_labels_of_pixels_are_read_as_needed(tmp_path):
    y = RNG.normal(size=(37, 6, 5, 1)).astype(np.float32)

    def run(x, y, **options):
        model = nn.Sequential(nn.Conv(1, 1, 3, padding=1, rng=0))
        sgd = nn.SGD(model.parameters(), lr=0.1)
        options |= {"epochs": 2, "validation": (x, y)}
        return model, nn.fit(model, nn.MeanSquaredError(), sgd, x, y, **options)

    (tmp_path / "y").mkdir()
    stored = run(zarr_array(tmp_path, X), zarr_array(tmp_path / "y", y), **SCALE)
    assert_same(stored, run(FLOATS, y))


# Checkpoints ------------------------------------------------------------------------------------


def test_the_identity_of_stored_data_reads_a_sample(tmp_path):
    lazy = Lazy(np.zeros((5000, 6, 5, 1), np.uint8), (slice, np.ndarray))
    y = np.zeros(5000, int)
    train(lazy, y, epochs=0, checkpoint=tmp_path / "run.npz", **SCALE)
    assert 0 < lazy.read < 100


def data_of(path):
    return nn.load_checkpoint(path).settings["data"]


@each_kind
def test_a_resume_has_the_bits_of_a_run_that_went_on(kind, tmp_path):
    (tmp_path / "d").mkdir()
    path, stored = tmp_path / "run.npz", KINDS[kind](tmp_path / "d", X)
    options = {"augment": RandomFlip(), "checkpoint": path, **SCALE}
    train(stored, epochs=1, **options)
    assert data_of(path).startswith("sample ")
    resumed = train(stored, epochs=2, resume=True, **options)
    assert_same(resumed, train(FLOATS, augment=RandomFlip()))


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ({"scale": 0.5}, {"scale": 0.25}, "scale was 0.5, is 0.25"),
        ({"scale": 0.5}, {"scale": 0.5, "transform": np.tanh}, "transform was None, is"),
        ({"transform": np.float32}, {"transform": np.float64}, ""),
        (
            {"transform": lambda x: x / np.float32(2)},
            {"transform": lambda x: x / np.float32(3)},
            "transform was ",
        ),
    ],
    ids=["scale", "more", "class", "code"],
)
def test_scale_and_transform_are_compared_at_a_resume(before, after, text, tmp_path):
    path = tmp_path / "run.npz"
    if not text:
        with pytest.raises(TypeError, match="transform: a function such as"):
            train(X, epochs=1, checkpoint=path, **before)
        return
    train(X, epochs=1, checkpoint=path, **before)
    train(X, epochs=1, checkpoint=path, resume=True, **before)
    with pytest.raises(ValueError, match=f"another run: {text}"):
        train(X, epochs=2, checkpoint=path, resume=True, **after)


def test_changed_data_are_seen(tmp_path):
    path, other = tmp_path / "run.npz", X.copy()
    other[-1, 0, 0, 0] += 1
    lazy = (slice, np.ndarray)
    train(Lazy(X, lazy), epochs=1, checkpoint=path, **SCALE)
    for x, y in ((Lazy(other, lazy), Y), (Lazy(X, lazy), (Y + 1) % 3), (Lazy(X[1:], lazy), Y[1:])):
        with pytest.raises(ValueError, match="another run: data was 'sample "):
            train(x, y, epochs=2, checkpoint=path, resume=True, **SCALE)


def test_one_run_of_stored_data_and_data_in_memory(tmp_path):
    """The digest of an older checkpoint is of all images; each is compared in its own form."""
    path, validation = tmp_path / "run.npz", (X[:9], Y[:9])
    train(X, epochs=1, checkpoint=path, validation=validation, **SCALE)
    assert len(data_of(path)) == 32
    stored = memmap(tmp_path, X)
    train(stored, epochs=2, checkpoint=path, resume=True, validation=validation, **SCALE)
    assert data_of(path).startswith("sample ")
    found = train(X, epochs=3, checkpoint=path, resume=True, validation=validation, **SCALE)
    assert_same(found, train(FLOATS, epochs=3, validation=(FLOATS[:9], Y[:9])))


# What is wrong ----------------------------------------------------------------------------------

WRONG = [
    ({"scale": 0}, ValueError, "scale: must be above 0, got 0"),
    ({"scale": -1.0}, ValueError, "scale: must be above 0"),
    ({"scale": float("nan")}, ValueError, "scale: must be finite"),
    ({"scale": "1/255"}, TypeError, "scale: a number is needed"),
    ({"transform": 3}, TypeError, r"transform: a function such as transform\(x\) -> x"),
    ({"transform": lambda x: x}, TypeError, "transform: an array of floats must come back, got an"),
    ({"transform": lambda x: None}, TypeError, "transform: an array of floats must come back"),
    ({"transform": lambda x: x[:1] / 2}, ValueError, r"transform: 5 images must come back"),
    ({}, TypeError, "x: dtype must be float32 or float64, got uint8; scale= makes floats"),
]


@pytest.mark.parametrize(("options", "kind", "text"), WRONG)
def test_wrong_options(options, kind, text, tmp_path):
    path = tmp_path / "run.npz"
    model = network()
    with pytest.raises(kind, match=f"^{text}"):
        train(X, model=model, checkpoint=path, **options)
    assert not path.exists()
    for call in (
        lambda: model.predict(X[:5], **options),
        lambda: nn.evaluate(model, nn.SoftmaxCrossEntropy(), X[:5], Y[:5], **options),
    ):
        with pytest.raises(kind, match=f"^{text}"):
            call()  # fmt: skip


class Lying(Lazy):
    def __getitem__(self, index):
        return self.array[index][..., :3, :]


@pytest.mark.parametrize(
    ("x", "y", "kind", "text"),
    [
        (Lying(X, object), Y, ValueError, r"x: an object of Lying says \(37, 6, 5, 1\) of uint8"),
        (Lazy(X.astype(str), object), Y, TypeError, "x: dtype must be float32 or float64, got <U"),
        (Lazy(X[:0], object), Y[:0], ValueError, r"x: expected \(m, ...\) with m of at least 1"),
        (Lazy(X, object), Y[:5], ValueError, "y: expected 37 labels, one per image"),
        (Lazy(X, object), Y + 1, ValueError, "y: .* 0 .. 2"),
        (X, None, TypeError, "y: labels are needed beside images that are an array"),
        (Lazy(X, object), None, TypeError, "y: labels are needed"),
    ],
)
def test_wrong_data(x, y, kind, text, tmp_path):
    with pytest.raises(kind, match=f"^{text}"):
        train(x, y, checkpoint=tmp_path / "run.npz", **SCALE)
    assert not (tmp_path / "run.npz").exists()


def test_an_error_of_the_source_is_the_callers(tmp_path):
    files = png_files(tmp_path, X)
    (tmp_path / "07.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"07\.png"):
        train(files, **SCALE)


def test_parts_of_stored_rows():
    rows = sources.as_rows("x", Lazy(X, (slice, np.ndarray)))
    part = rows.part(np.array([30, 2, 9]))
    np.testing.assert_array_equal(part.take(np.array([2, 0])), X[[9, 30]])
    np.testing.assert_array_equal(part.part(np.array([1])).whole(), X[[2]])
    memory = sources.as_rows("x", X).part(np.array([3, 1]))
    assert not memory.stored
    np.testing.assert_array_equal(memory.whole(), X[[3, 1]])
