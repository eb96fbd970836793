"""The comparison of whole networks: one answer in every library, checked before it is timed."""

import csv
import gzip
import re
import struct
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
answers = import_module("comparison.answers")
cases = import_module("comparison.cases")
epoch = import_module("epoch")
inference = import_module("inference")
memory = import_module("comparison.memory")
networks = import_module("comparison.networks")
options = import_module("comparison.options")
report = import_module("comparison.report")
training = import_module("training")
Fastconv = import_module("comparison.peers.fastconv").Fastconv

QUICK = ["--threads", "1", "--repeat", "3", "--seconds", "0.01"]
SMALLEST = ["seed", "--batches", "1", *QUICK]
needs_proc = pytest.mark.skipif(not memory.CLEAR.exists(), reason="needs Linux's /proc")


def answer(library, case):
    call = library.prepare(case)
    return call.answer(call.run())


class Fake(Fastconv):
    """Another library: fastconv's answers, or wrong ones."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor, self.runs = factor, 0

    def prepare(self, case):
        call = super().prepare(case)

        def run():
            self.runs += 1
            return call.run()

        return cases.Call(run, lambda result: self.factor * call.answer(result))


@pytest.mark.parametrize("program", [training, inference])
def test_without_other_libraries(program, capsys):
    assert program.main([*SMALLEST, "--peers"]) == 0
    out = capsys.readouterr().out
    assert "no other library was timed" in out
    (line,) = (words.split() for words in out.splitlines() if words.startswith("m1 "))
    product, milliseconds, ratio, best, rate, _ = line[1:]
    assert product == {"training": "step", "inference": "predict"}[program.__name__]
    assert ratio == best == "-"
    assert float(rate) == pytest.approx(1e3 / float(milliseconds), rel=0.01)


@pytest.mark.parametrize(
    ("program", "baseline"), [(training, "pytorch"), (inference, "onnxruntime")]
)
def test_rows_means_and_csv(program, baseline, tmp_path, capsys):
    path = tmp_path / "figures.csv"
    words = ["seed", "digits_cnn", "--batches", "1", "2", *QUICK, "--csv", str(path)]
    assert program.main(words, {baseline: Fake, "other": Fake}) == 0
    out = capsys.readouterr().out
    for word in (f"x {report.LABELS[baseline]}", "all tables", "m2 ", "a thread"):
        assert word in out
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * 2 * 3  # networks, batches, libraries
    for line in lines:
        rate = int(line["name"][1:]) / float(line["milliseconds"]) * 1e3
        assert float(line["images_per_second"]) == pytest.approx(rate)


@pytest.mark.parametrize("program", [training, inference])
def test_a_wrong_answer_is_reported_and_not_timed(program, capsys):
    wrong = Fake(factor=1.01)
    assert program.main(SMALLEST, {"pytorch": lambda: wrong, "other": Fake}) == 1
    assert "WRONG: pytorch, seed m1 (m1 h8w8c1)" in capsys.readouterr().out
    assert wrong.runs == 1


def test_a_library_that_is_not_installed_is_left_out(capsys):
    def missing():
        raise ImportError("No module named 'other'")

    assert training.main(SMALLEST, {"other": missing}) == 0
    assert capsys.readouterr().out.count("other is left out: No module named 'other'\n") == 1


@pytest.mark.parametrize("program", [training, inference, epoch])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--peers", "tensorflow"], "invalid choice: 'tensorflow'"),
        (["--threads", "9999"], "--threads 9999: this process has "),
        (["--csv", "no/such/folder/x.csv"], "--csv: there is no folder no/such/folder"),
    ],
)
def test_argument_errors_are_one_line(program, words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        program.main(words)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_an_unknown_network_is_one_line(capsys):
    with pytest.raises(SystemExit):
        training.main(["lenet6"])
    assert "there is no network 'lenet6'; expected one of seed, " in capsys.readouterr().err


def test_each_file_uses_only_those_above_it():
    folder = Path(networks.__file__).parent
    words = (folder / "__init__.py").read_text().split('"""')[1].partition("\n\n")[2]
    names = [re.split(r"\s{2,}", line)[0].split(", ") for line in words.splitlines()]
    order = [name.rstrip("/") for line in names for name in line if name]
    assert sorted(order) == sorted(p.stem for p in folder.iterdir() if p.stem[0] not in "_.")
    for file in folder.rglob("*.py"):
        here = file.relative_to(folder).parts[0].removesuffix(".py")
        used = set(re.findall(r"^\s*(?:from|import) comparison\.(\w+)", file.read_text(), re.M))
        below = order[order.index(here) :] if here in order else []
        assert not used & set(below), file.name


# Networks and their answers -----------------------------------------------------------------------


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_data_are_as_training_has_them(name):
    network = networks.NETWORKS[name]
    case = networks.NetworkCase(network, 4, "step")
    assert len(case.batches) == networks.BATCHES
    x, y = case.batches[0]
    assert x.shape == (4, *network.image)
    assert 0 <= y.min() <= y.max() < network.classes
    first = next(a for a in network.model().activations(x) if (a == 0).any())
    assert 0.1 < (first == 0).mean() < 0.9  # a ReLU's output


def test_dropout_can_be_left_out():
    network = networks.NETWORKS["keras_mnist"]
    x = np.ones((2, 28, 28, 1), np.float32)
    model = network.model(dropout=False)
    np.testing.assert_array_equal(model.forward(x), model.forward(x))
    model = network.model()
    assert (model.forward(x) != model.forward(x)).any()


def test_timed_steps_leave_the_weights_where_they_are():
    case = networks.NetworkCase(networks.NETWORKS["seed"], 2, "step")
    rates = []

    def trainer(dropout, lr):
        rates.append((dropout, lr))
        return lambda: 1.0

    call = case.training(trainer)
    assert rates == [(True, networks.HELD)]
    assert call.answer(call.run()).tolist() == [1.0] * networks.STEPS
    assert rates[1:] == [(False, case.network.rate)]


@pytest.mark.parametrize("name", ["seed", "digits_cnn", "resnet8"])
def test_predictions_equal_the_naive_loops(name):
    case = networks.NetworkCase(networks.NETWORKS[name], 2, "predict")
    got = answer(Fastconv(), case)
    answers.check_network(got[:1], answers.first_prediction(case))
    with pytest.raises(answers.WrongAnswerError, match=r"at \(0, 0\)"):
        answers.check_network(got[:1] + 0.1 * (np.arange(got.shape[1]) == 0), got[:1])
    with pytest.raises(answers.WrongAnswerError, match="shape"):
        answers.check_network(got, got[:1])
    with pytest.raises(answers.WrongAnswerError, match="not finite"):
        answers.check_network(got * np.nan, None)


def test_a_wrong_update_shows_in_the_losses():
    """A tenth of the learning rate more is beyond the bound, for both optimizers."""
    for name in ("seed", "lenet5_simplechains"):
        case = networks.NetworkCase(networks.NETWORKS[name], 4, "step")
        right = answer(Fastconv(), case)
        network = case.network
        model, loss = network.model(), network.loss()
        optimizer = network.optimizer(model, 1.1 * network.rate)
        step = import_module("fastconv.nn").train_step
        wrong = [
            step(model, loss, optimizer, *case.batches[i % networks.BATCHES])[0]
            for i in range(networks.STEPS)
        ]
        with pytest.raises(answers.WrongAnswerError):
            answers.check_network(np.array(wrong), right)


AGREEING = [
    (library, name, product)
    for name in ("seed", "digits_cnn", "resnet8", "resnet20")
    for library in ("pytorch", "jax", "onnxruntime")
    for product in ("predict", "step")
    # onnxruntime does not train, and what is new in resnet20 is the same in both products
    if product == "predict" or (library != "onnxruntime" and name != "resnet20")
]


@pytest.mark.parametrize(("library", "name", "product"), AGREEING)
def test_libraries_agree(library, name, product):
    pytest.importorskip({"pytorch": "torch"}.get(library, library))
    case = networks.NetworkCase(networks.NETWORKS[name], 3, product)
    choice = {"formats": ("channels_last",)} if library == "pytorch" else {}
    before = jax_precision()
    try:
        (make,) = options.makers(library, **{library: choice}).values()
        answers.check_network(answer(make(), case), answer(Fastconv(), case))
    finally:
        jax_precision(before)


def jax_precision(value=None):
    """Whether JAX has float64, which its adapter switches on; set it where a value is given."""
    jax = sys.modules.get("jax")
    if jax is not None and value is not None:
        jax.config.update("jax_enable_x64", value)
    return False if jax is None else jax.config.jax_enable_x64


# Memory -------------------------------------------------------------------------------------------


@needs_proc
def test_memory(capsys):
    words = ["lenet5", "--batches", "64", *QUICK, "--memory", "--peers"]
    assert training.main(words) == 0
    out = capsys.readouterr().out
    assert "fastconv MiB" in out
    (line,) = (words.split() for words in out.splitlines() if words.startswith("m64 "))
    activations = 64 * (28 * 28 * 6 + 10 * 10 * 16) * 4 / 2**20  # before the pools
    assert 0.5 * activations < float(line[-1]) < 20 * activations


@needs_proc
def test_memory_that_a_call_takes_for_a_moment_is_seen():
    code = """
from comparison import memory
from comparison.peers.fastconv import Fastconv
prepare = Fastconv.prepare
def greedy(self, case):
    call = prepare(self, case)
    return call._replace(run=lambda: (call.run(), len(b"1" * (case.batch - 1) * 2**20)))
Fastconv.prepare = greedy
memory.child("fastconv", "seed", 7, "predict", 1, {})
"""
    assert 5.5 * 2**20 < int(memory._python(code)) < 10 * 2**20


def test_a_child_process_that_fails_is_an_error(capsys):
    with pytest.raises(SystemExit, match="status 1"):
        memory._python("raise OSError('broken')")
    assert "OSError: broken" in capsys.readouterr().err


# An epoch -----------------------------------------------------------------------------------------


@pytest.fixture
def idx(tmp_path):
    """A folder of IDX files: 40 images of 8x8 pixels, in ten classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(40, dtype=np.uint8) % 10
    for name, magic, array in (
        ("train-images-idx3-ubyte", 0x803, rng.integers(0, 256, (40, 8, 8), np.uint8)),
        ("train-labels-idx1-ubyte", 0x801, labels),
    ):
        header = struct.pack(f">{1 + array.ndim}I", magic, *array.shape)
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(header + array.tobytes()))
    return tmp_path


def test_an_epoch(idx, capsys):
    words = ["--data", str(idx), "--images", "20", "--batch", "8", *QUICK]
    assert epoch.main(words, {"pytorch": Fake}) == 0
    out = capsys.readouterr().out
    (line,) = (words.split() for words in out.splitlines() if words.startswith("m8 "))
    assert line[1] == "epoch"
    assert float(line[6]) == pytest.approx(20e3 / float(line[2]), rel=0.01)  # images/s


def test_an_epoch_in_pytorch(idx, capsys):
    pytest.importorskip("torch")
    words = ["--data", str(idx), "--images", "20", "--batch", "8", *QUICK]
    assert epoch.main(words) == 0
    assert "geometric means" in capsys.readouterr().out


def test_an_epoch_without_data_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit):
        epoch.main(["--data", str(tmp_path)], {})
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "epoch.py: error: --data: " in error
