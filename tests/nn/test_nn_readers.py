"""Readers: CIFAR, folders of PNG and JPEG files, IDX of other types, names of classes."""

import gzip
import pickle
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from fastconv import examples
from fastconv.examples import data as loaders
from fastconv.examples.names import read_names

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (40, 32, 32, 3), np.uint8)
TEN, HUNDRED = np.arange(40) % 10, np.arange(40) * 2


def records(images, *labels):
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    columns = [np.asarray(label, np.uint8)[:, None] for label in labels]
    return np.concatenate([*columns, planes], axis=1).tobytes()


def write_cifar(folder, classes=10, test=True):
    """The files of the binary form, as the archive has them."""
    if classes == 10:
        folder = folder / "cifar-10-batches-bin"
        folder.mkdir()
        for batch in range(2):
            part = slice(20 * batch, 20 * batch + 20)
            content = records(IMAGES[part], TEN[part])
            (folder / f"data_batch_{batch + 1}.bin").write_bytes(content)
        (folder / "batches.meta.txt").write_text(
            "\n".join(f"class {n}" for n in range(10)) + "\n\n"
        )
        last = folder / "test_batch.bin", records(IMAGES[:7], TEN[:7])
    else:
        folder = folder / "cifar-100-binary"
        folder.mkdir()
        (folder / "train.bin").write_bytes(records(IMAGES, HUNDRED // 5, HUNDRED))
        (folder / "fine_label_names.txt").write_text("\n".join(f"fine {n}" for n in range(100)))
        last = folder / "test.bin", records(IMAGES[:7], HUNDRED[:7] // 5, HUNDRED[:7])
    if test:
        last[0].write_bytes(last[1])
    return folder


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("around", [True, False])
def test_cifar(classes, around, tmp_path):
    folder = write_cifar(tmp_path, classes)
    for load in (examples.load_cifar, examples.load_data):
        d = load(tmp_path if around else folder)
        np.testing.assert_array_equal(d.x_train, IMAGES.astype(np.float32) / np.float32(255))
        np.testing.assert_array_equal(d.y_train, TEN if classes == 10 else HUNDRED)
        assert (d.x_test.shape, d.y_test.dtype) == ((7, 32, 32, 3), np.int64)
        assert d.classes == classes
        assert d.class_names[3] == ("class 3" if classes == 10 else "fine 3")


def test_cifar_without_test_and_names(tmp_path):
    folder = write_cifar(tmp_path, test=False)
    (folder / "batches.meta.txt").unlink()
    (folder / "data_batch_2.bin").unlink()
    (folder / "data_batch_1.bin").write_bytes(records(IMAGES, TEN))
    d = loaders.load_cifar(str(folder))
    assert (len(d.x_train), len(d.x_test), d.class_names, d.classes) == (30, 10, None, 10)


def test_batches_of_cifar_are_in_the_order_of_their_numbers(tmp_path):
    folder = write_cifar(tmp_path)
    (folder / "data_batch_2.bin").rename(folder / "data_batch_10.bin")
    (folder / "data_batch_3.bin").write_bytes(records(IMAGES[:1], [9]))
    assert examples.load_cifar(folder).y_train[[0, 20, 21]].tolist() == [0, 9, 0]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("data_batch_2.bin", b"", "expected records of 3073 bytes, .* found 0 bytes"),
        ("data_batch_1.bin", bytes(3073 * 2 - 1), "records of 3073 bytes, .* found 6145 bytes"),
        ("data_batch_1.bin", b"\x0a" + bytes(3072), r"expected labels in 0 \.\. 9, found 10"),
        ("test_batch.bin", bytes(3074), "records of 3073 bytes"),
        ("batches.meta.txt", b"one\ntwo\n", "expected 10 names of classes, .* found 2"),
        ("batches.meta.txt", b"\xff\xfe", "expected names of classes in UTF-8"),
        ("batches.meta.txt", b"", "the file is empty"),
    ],
)
def test_wrong_cifar(name, content, says, tmp_path):
    folder = write_cifar(tmp_path)
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=says) as caught:
        examples.load_data(folder)
    assert name in str(caught.value)


def test_cifar_above_the_limit(tmp_path):
    folder = write_cifar(tmp_path)
    with pytest.raises(ValueError, match=r"data_batch_1\.bin: 122920 bytes, above the limit 99999"):
        examples.load_cifar(folder, max_bytes=99_999)
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match="none: expected CIFAR's binary files: data_batch"):
        examples.load_cifar(tmp_path / "none")


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("unpickled",)


@pytest.mark.parametrize(
    ("folder", "name"),
    [("cifar-10-batches-py", "data_batch_1"), ("cifar-100-python", "train"), ("mine", "meta"),
     ("mine", "data_batch_1")],
)  # fmt: skip
def test_pickled_cifar_is_refused_with_the_way_out(folder, name, tmp_path):
    place = tmp_path / folder
    place.mkdir()
    (place / name).write_bytes(pickle.dumps(Bomb()))
    inside = [tmp_path] if folder != "mine" else []
    for path in (place, *inside):
        for load in (examples.load_cifar, examples.load_data):
            with pytest.raises(ValueError, match=r"pickled.*binary version \(cifar-10-bin") as got:
                load(path)
            assert str(path) in str(got.value)


# Folders of images ------------------------------------------------------------------------------


def write_folder(folder, suffix=".png", modes=("RGB",), kinds=("cat", "dog"), count=5, size=(6, 8)):
    """`count` images of each class; returns what a reader should find."""
    found = []
    for label, kind in enumerate(kinds):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = np.random.default_rng(10 * label + i).integers(0, 256, (*size, 3), np.uint8)
            image = Image.fromarray(pixels).convert(modes[i % len(modes)])
            image.save(folder / kind / f"{i:02}{suffix}")
            with Image.open(folder / kind / f"{i:02}{suffix}") as saved:
                found.append(np.asarray(saved.convert("L" if set(modes) <= {"L", "1"} else "RGB")))
    return np.stack(found).reshape(len(found), *size, -1)


@pytest.mark.parametrize(
    ("suffix", "modes"),
    [(".png", ("RGB",)), (".png", ("L",)), (".png", ("RGBA", "P", "L")), (".jpg", ("RGB", "L")),
     (".JPEG", ("L",)), (".png", ("1", "L"))],
)  # fmt: skip
def test_a_folder_of_images(suffix, modes, tmp_path):
    pixels = write_folder(tmp_path, suffix, modes)
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"no image")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "readme.txt").write_text("mine")
    labels = np.arange(10) // 5
    kept, held = examples.stratified_split(labels)
    for d in (examples.load_folder(tmp_path), examples.load_data(str(tmp_path))):
        assert d.x_train.dtype == np.float32
        np.testing.assert_array_equal(d.x_train, pixels[kept].astype("f4") / np.float32(255))
        np.testing.assert_array_equal(d.x_test, pixels[held].astype("f4") / np.float32(255))
        np.testing.assert_array_equal(d.y_test, labels[held])
        assert (d.classes, d.class_names) == (2, ("cat", "dog"))
    lazy = examples.load_folder(tmp_path, lazy=True)
    assert isinstance(lazy.x_train, examples.ImageFiles)
    assert (lazy.x_train.shape, lazy.x_train.dtype) == (d.x_train.shape, np.uint8)
    np.testing.assert_array_equal(lazy.x_train[:], pixels[kept])
    np.testing.assert_array_equal(lazy.x_test[np.array([1, 0])], pixels[held][[1, 0]])
    np.testing.assert_array_equal(lazy.x_train[-1], pixels[kept][-1])
    np.testing.assert_array_equal(lazy.y_train, d.y_train)


@pytest.mark.parametrize("test", ["test", "val", "Valid"])
def test_a_folder_with_its_own_test(test, tmp_path):
    pixels = write_folder(tmp_path / "train", kinds=("9", "10"))
    write_folder(tmp_path / test, kinds=("10", "11"), modes=("L",))
    for lazy in (False, True):
        d = examples.load_folder(tmp_path, lazy=lazy)
        assert d.class_names == ("9", "10", "11")  # in the order of numbers
        assert d.y_train.tolist() == [0] * 5 + [1] * 5
        assert d.y_test.tolist() == [1] * 5 + [2] * 5
        assert d.x_test.shape == (10, 6, 8, 3)  # as the training images: in colour
        scale = 1 if lazy else 255
        np.testing.assert_allclose(d.x_train[0] * scale, pixels[0] * 1.0, atol=1e-4)


def test_images_of_several_sizes_are_resized_where_that_is_said(tmp_path):
    write_folder(tmp_path)
    Image.new("RGB", (20, 10), (255, 0, 0)).save(tmp_path / "dog" / "04.png")
    with pytest.raises(ValueError, match=r"04\.png: expected 6x8 .*found 10x20: size=\(H, W\)"):
        examples.load_data(tmp_path)
    d = examples.load_data(tmp_path, size=(12, 4))
    assert d.x_train.shape[1:] == (12, 4, 3)
    assert examples.load_folder(tmp_path, size=(12, 4), lazy=True).x_train[:].shape == (8, 12, 4, 3)
    for size in (3, (3,), (0, 4), (2.5, 4)):
        with pytest.raises((ValueError, TypeError), match=r"^size: "):
            examples.load_folder(tmp_path, size=size)
    np.savez(tmp_path / "a.npz", x=IMAGES[..., 0], y=TEN)
    with pytest.raises(ValueError, match="size: only a folder of PNG or JPEG files is resized"):
        examples.load_data(tmp_path / "a.npz", size=(8, 8))


def test_a_folder_above_the_limit_is_read_lazily(tmp_path):
    write_folder(tmp_path)
    with pytest.raises(ValueError, match=r"1440 bytes of pixels, above the limit 99; .*lazy=True"):
        examples.load_folder(tmp_path, max_bytes=99)
    assert len(examples.load_folder(tmp_path, max_bytes=99, lazy=True).x_train) == 8


def grey_of_16_bits(path):
    Image.fromarray(np.full((6, 8), 999, np.uint16)).save(path)


def mostly_claimed(path):
    """A header of 60000x60000 pixels, and no more bytes than before."""
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">2I", 60000, 60000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda p: p.write_bytes(b""), "expected a whole PNG or JPEG file"),
        (lambda p: p.write_bytes(b"GIF89a" + bytes(99)), "expected a whole PNG or JPEG file"),
        (lambda p: p.write_bytes(p.read_bytes()[:-40]), "expected a whole PNG or JPEG file"),
        (lambda p: p.write_bytes(pickle.dumps(Bomb())), "expected a whole PNG or JPEG file"),
        (grey_of_16_bits, "expected 8 bits a channel, found Pillow's mode 'I;16'"),
        (mostly_claimed, "60000"),
        (lambda p: Image.new("RGB", (9, 9)).save(p, "gif"), "expected a whole PNG or JPEG"),
    ],
)
def test_wrong_images(spoil, says, tmp_path):
    write_folder(tmp_path)
    spoil(tmp_path / "cat" / "00.png")
    with pytest.raises(ValueError, match=says) as caught:
        examples.load_data(tmp_path)
    assert "00.png" in str(caught.value)


def test_an_image_that_changes_while_it_is_used(tmp_path):
    write_folder(tmp_path)
    images = examples.load_folder(tmp_path, lazy=True).x_train
    Image.new("RGB", (3, 3)).save(images.paths[2])
    with pytest.raises(ValueError, match="it is 3x3 now, it was 6x8"):
        images[2]


def test_classes_with_the_names_of_cifars_files(tmp_path):
    write_folder(tmp_path, kinds=("meta", "test_batch"))
    assert examples.load_data(tmp_path).class_names == ("meta", "test_batch")


def test_folders_that_are_none(tmp_path):
    (tmp_path / "cat").mkdir()
    with pytest.raises(FileNotFoundError, match=r"expected IDX files such as .*\(found: cat\)"):
        examples.load_data(tmp_path)
    with pytest.raises(FileNotFoundError, match="expected a folder of PNG or JPEG files for each"):
        examples.load_folder(tmp_path)


def test_without_pillow(tmp_path, monkeypatch):
    write_folder(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "PIL"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r'pip install "fastconv\[examples\]"'):
        examples.load_data(tmp_path)


# IDX --------------------------------------------------------------------------------------------

CODES = {"ubyte": (8, ">u1"), "byte": (9, ">i1"), "short": (11, ">i2"), "int": (12, ">i4"),
         "float": (13, ">f4"), "double": (14, ">f8")}  # fmt: skip


def idx(array, kind):
    number, dtype = CODES[kind]
    header = struct.pack(f">2x2B{array.ndim}I", number, array.ndim, *array.shape)
    return header + array.astype(dtype).tobytes()


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("colour", [True, False])
def test_idx_of_every_type(kind, colour, tmp_path):
    x = IMAGES[:, :6, :5] // 2
    x = x if colour else x[..., 0]
    (tmp_path / f"train-images-idx{x.ndim}-{kind}").write_bytes(idx(x, kind))
    labels = gzip.compress(idx(TEN, "short"))
    (tmp_path / "train-labels.idx1-short.gz").write_bytes(labels)
    d = examples.load_data(tmp_path)
    kept, _ = examples.stratified_split(TEN)
    scale = {"ubyte": 255, "float": 1, "double": 1}.get(kind, x.max())
    expected = x.reshape(40, 6, 5, -1)[kept].astype(np.float32) / np.float32(scale)
    np.testing.assert_array_equal(d.x_train, expected)
    np.testing.assert_array_equal(d.y_train, TEN[kept])


@pytest.mark.parametrize(
    "names",
    [
        ("train-images-idx", "train-labels-idx"), ("train_images.idx", "train_labels.idx"),
        ("mine-train-images.idx.gz", "mine-train-labels.idx.gz"),
        ("train.images-idx4-ubyte", "train.labels-idx2-ubyte"),
    ],
)  # fmt: skip
def test_idx_of_other_names(names, tmp_path):
    one_hot = np.eye(10)[TEN]
    for name, array in zip(names, (IMAGES, one_hot), strict=True):
        (tmp_path / name).write_bytes(idx(array, "ubyte"))
    assert examples.load_data(tmp_path).classes == 10
    (tmp_path / names[0]).write_bytes(gzip.compress(idx(TEN, "ubyte")))
    with pytest.raises(ValueError, match=r"expected an IDX file .*got 00000801") as caught:
        examples.load_data(tmp_path)
    assert names[0] in str(caught.value)


# Names ------------------------------------------------------------------------------------------


def test_medmnists_file(tmp_path):
    arrays = {f"{part}_images": IMAGES[:20] for part in ("train", "val", "test")}
    arrays |= {
        f"{part}_labels": TEN[:20, None].astype(np.uint8) for part in ("train", "val", "test")
    }
    np.savez_compressed(tmp_path / "bloodmnist.npz", **arrays)
    d = examples.load_data(tmp_path / "bloodmnist.npz")
    assert (d.x_train.shape, d.y_train.shape, d.classes) == ((20, 32, 32, 3), (20,), 10)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"cat\ndog\n", ("cat", "dog")),
        (b"\xef\xbb\xbfK\xc3\xa4fer\r\n a b \r\n\r\n", ("Käfer", "a b")),
        (b"one", ("one",)),
    ],
)
def test_names_of_classes(content, names, tmp_path):
    (tmp_path / "names.txt").write_bytes(content)
    assert read_names(tmp_path / "names.txt") == names


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty"),
        (b"a\n\nb", "line 2 is empty"),
        (b"a\0b", "found zero bytes"),
        (b"\xff", "in UTF-8"),
        (b"a" * (2**22 + 1), "above 4194304 bytes"),
    ],
)
def test_wrong_names(content, says, tmp_path):
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(ValueError, match=rf"names\.txt: .*{says}"):
        read_names(tmp_path / "names.txt")
