"""The program as a whole: help, version, errors, and the commands info, warmup and bench."""

import csv
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

import fastconv
from fastconv import examples
from fastconv.cli import COMMANDS, main
from fastconv.cli.commands import bench
from fastconv.cli.output import print_table
from fastconv.problems import parse_problem
from fastconv.problems.timing import measure


def one_error_line(capsys):
    """The single line on standard error; nothing else may have been printed."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert "Traceback" not in err
    return err


def test_no_command_prints_help(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    for name in COMMANDS:
        assert re.search(rf"^\s+{name}\s+\S", out, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"fastconv {command}" in out
    assert "--help" in out


def test_help_without_rich_argparse(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich_argparse", None)
    assert main(["train", "--help"]) == 0
    assert "--epochs N" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fastconv {fastconv.__version__}\n"


LONG = "x" * 300  # longer than a file system's names


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["trian"], "invalid choice: 'trian'"),
        (["trian"], "did you mean train?"),
        (["train", "--epoch", "3"], "unknown option --epoch; did you mean --epochs?"),
        (["train", "extra"], "unknown argument extra"),
        (["--versoin"], "unknown option --versoin; did you mean --version?"),
        (["train", "--model", "digit_cnn"], "did you mean digits_cnn?"),
        (["train", "--epochs", "0"], "'0' is not a whole number of at least 1"),
        (["train", "--epochs", "many"], "'many' is not a whole number of at least 1"),
        (["train", "--batch-size", "2.5"], "'2.5' is not a whole number of at least 1"),
        (["train", "--lr", "-1"], "'-1' is not a number above 0"),
        (["train", "--lr", "nan"], "'nan' is not a number above 0"),
        (["train", "--lr", "inf"], "'inf' is not a number above 0"),
        (["train", "--seed", "-1"], "'-1' is not a whole number of at least 0"),
        (["train", "--data", "no_such.npz"], "no_such.npz"),
        (["train", "--out", os.devnull + "/x", "--model", "binary_cnn"], "Not a directory"),
        (["train", "--out", ""], "argument --out: a path is needed, got ''"),
        (["train", "--out", LONG], f"argument --out: '{LONG[:40]}...': File name too long"),
        (["train", "--data", ""], "argument --data: a path is needed"),
        (["train", "--data", LONG], "--data: 'xxx"),
        (["train", "--report", ""], "argument --report: a path is needed"),
        (["train", "--labels", ""], "argument --labels: a path is needed"),
        (["train", "--show-augmentation", ""], "a path is needed"),
        (["predict", "", "a.png"], "argument MODEL: a path is needed"),
        (["predict", "run", ""], "argument IMAGES: a path is needed"),
        (["predict", LONG, "a.png"], "argument MODEL: 'xxx"),
        (["export", ""], "argument MODEL: a path is needed"),
        (["export", "run", ""], "argument FILE.onnx: a path is needed"),
        (["export", LONG], "argument MODEL: 'xxx"),
        (["explain", "--png", ""], "argument --png: a path is needed"),
        (["explain", "--html", ""], "argument --html: a path is needed"),
        (["explain", "--html", "."], "--html: . is a folder; a file name is needed"),
        (["explain", "--notebook", ""], "argument --notebook: a path is needed"),
        (["explain", "--notebook", LONG], "argument --notebook: 'xxx"),
        (["bench", "--csv", ""], "argument --csv: a path is needed"),
        (["train", "--resume", "--out", "no_such_folder"], "there is no checkpoint no_such_folder"),
        (["train", "--out"], "expected one argument"),
        (["check", "--seed", "x"], "'x' is not a whole number of at least 0"),
        (["explain", "--digit", "7"], "invalid choice"),
        (["explain", "--image", "no_such.npy"], "no_such.npy"),
        (["explain", "--image", "4000"], "test images of the digit 1; expected 0 to"),
        (["explain", "--image", "-1"], "-1: No such file or directory"),
        (["bench", "m1 h8w8c1 f2"], "k is missing; expected the window"),
        (["bench", "no_such_table.txt"], "no_such_table.txt: No such file or directory"),
        (["bench", "--dtype", "int8"], "invalid choice: 'int8'"),
        (["bench", "--threads", "0"], "'0' is not a whole number of at least 1"),
        (["warmup", "--dtype", "float31"], "did you mean float32?"),
        (["info", "--verbose"], "unknown option --verbose"),
        (["train", "--resume", "--overwrite"], "not allowed with argument"),
        (["explain", "--png", "none/flow.png"], "none/flow.png: No such file or directory"),
        (["explain", "--png", "."], "--png: . is a folder; a file name is needed"),
        (["explain", "--png", "flow.xyz"], "Format 'xyz' is not supported"),
        (["bench", "--csv", "none/a.csv"], "--csv: none/a.csv cannot be written"),
        (["bench", "--csv", "."], "--csv: . cannot be written: a file in a folder is needed"),
        (["export", "none"], "none/model.npz: no such file (a model saved by fastconv is needed)"),
        (["export", "none.npz", "a.txt"], "a.txt must be a file name that ends in .onnx"),
        (["export", "--input-shape", "8"], "no such file"),
        (["export", "--input-shape", "8x0"], "'8x0' is not a shape such as 8x8x1"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(words, expected, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    line = one_error_line(capsys)
    assert expected in line
    if words[0] in COMMANDS:
        assert line.startswith(f"fastconv {words[0]}: error: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train", "--data", "text"], "text: expected an .npz file with x and y, or a folder of"),
        (["train", "--data", "text.npz"], "text.npz: expected an .npz file with images x"),
        (
            ["train", "--data", "pictures"],
            "or a folder of PNG or JPEG files for each class (found: cat.png)",
        ),
        (["train", "--data", "model.npz"], "(found: architecture, format, parameters/0.b, "),
        (["train", "--data", "first.npz"], "if the channels come first, save np.moveaxis(x, 1, -"),
        (
            ["train", "--data", "t10k-images-idx3-ubyte"],
            "PNG and JPEG files: give the folder of this one",
        ),
        (["train", "--data", "good.npz", "--out", "text"], "--out: text is a file; a folder is"),
        (["train", "--data", "good.npz", "--report", "text"], "--report: text is a file; a fol"),
        (["train", "--data", "good.npz", "--out", "model.npz"], "--out: there is a run already, "),
        (["train", "--resume", "--out", "model.npz"], "there is model.npz, but no checkpoint mod"),
        (["export", "text"], "text: expected the folder that train wrote, or a file NAME.npz"),
        (["export", "good.npz"], "good.npz: expected a model saved by fastconv, but array 'form"),
        (["export", "pictures"], "pictures/model.npz: no such file"),
        (["explain", "--image", "pictures"], "--image: pictures: Is a directory"),
        (["explain", "--image", "good.npz"], "good.npz: not an .npy file"),
        (["bench", "good.npz"], "good.npz is not a text file"),
    ],
)
def test_files_of_another_kind(words, expected, capsys, monkeypatch, tmp_path):
    """One line, status 2, and every file stays as it is."""
    if words[0] == "export":
        pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    examples.binary_cnn().save("model.npz")
    (tmp_path / "pictures").mkdir()
    for name in ("text", "text.npz", "pictures/cat.png", "t10k-images-idx3-ubyte"):
        (tmp_path / name).write_text("no images\n", encoding="utf-8")
    y = np.arange(20) % 2
    np.savez("good.npz", x=np.zeros((20, 8, 8), np.uint8), y=y)
    np.savez("first.npz", x=np.zeros((20, 3, 32, 32), np.uint8), y=y)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert main(words) == 2
    assert expected in one_error_line(capsys)
    after = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert after == before


def test_too_little_memory_is_one_line(capsys):
    assert main(["bench", "m1 h1000000w1000000c100 f3 k3", "--repeat", "1"]) == 1
    assert "error: not enough memory: Unable to allocate" in one_error_line(capsys)


def test_whole_numbers_are_shown_whole(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = ["train", "--model", "binary_cnn", "--epochs", "1", "--seed", "12345678"]
    assert main(words) == 0
    assert "learning rate 0.01, seed 12345678\n" in capsys.readouterr().out
    assert main([*words[:-1], "12345679", "--resume"]) == 2
    assert "was made with --seed 12345678, not 12345679" in one_error_line(capsys)


# Who reads the output, and for how long ----------------------------------------------------------

WORDS = {
    "info": [],
    "explain": [],
    "warmup": ["--dtype", "float32"],
    "bench": ["m1 h6w6c2 f3 k3", "--repeat", "1"],
    "check": [],
    "train": ["--model", "binary_cnn", "--epochs", "2", "--out", "run"],
    "export": ["model.npz", "model.onnx"],
    "predict": ["model.npz", "image.npy"],
}


def run(words, folder, *, shell=None, **options):
    """Run the program; its standard error and exit status."""
    command = [sys.executable, "-m", "fastconv", *words]
    if shell:
        command = ["bash", "-c", f"{shlex.join(command)} {shell}"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=folder, env=environment, timeout=300, **options)
    return done.returncode


@pytest.fixture
def folder(tmp_path):
    examples.binary_cnn().save(tmp_path / "model.npz")
    np.save(tmp_path / "image.npy", np.zeros((8, 8)))
    return tmp_path


@pytest.mark.parametrize(
    "command",  # `check` takes half a minute
    [pytest.param(c, marks=pytest.mark.soak) if c == "check" else c for c in WORDS],
)
@pytest.mark.parametrize("how", ["closed", "none"])
def test_a_reader_that_goes_away_is_no_fault(command, how, folder):
    """`fastconv ... | true`, and `>&-`: the work is done, nothing is said, status 0."""
    words = [command, *WORDS[command]]
    if command == "export":
        pytest.importorskip("onnx")
    shell = "2> err | true; exit ${PIPESTATUS[0]}" if how == "closed" else "2> err >&-"
    assert run(words, folder, shell=shell) == 0
    err = (folder / "err").read_text(encoding="utf-8")
    assert "Traceback" not in err
    assert "Error" not in err
    written = {"train": "run/model.npz", "export": "model.onnx"}.get(command)
    assert written is None or (folder / written).exists()


def test_both_streams_may_go_away(folder):
    words = ["train", *WORDS["train"]]
    assert run(words, folder, shell="2>&1 | head -1 > first; exit ${PIPESTATUS[0]}") == 0
    assert (folder / "first").read_text(encoding="utf-8").count("\n") == 1
    assert (folder / "run" / "model.npz").exists()
    assert run([*words, "--overwrite"], folder, shell=">&- 2>&-") == 0
    for wrong in (["--epochs", "0"], ["--data", "none.npz"], ["--help"]):
        status = run(["train", *wrong], folder, shell=">&- 2>&-")
        assert status == (0 if wrong == ["--help"] else 2)


@pytest.mark.parametrize("words", [["--help"], ["--version"], [], ["train", "--help"]])
def test_help_for_nobody(words, folder):
    assert run(words, folder, shell="2> err | true; exit ${PIPESTATUS[0]}") == 0
    assert not (folder / "err").read_bytes()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_behind_the_output_is_said(folder):
    assert run(["train", *WORDS["train"]], folder, shell="2> err > /dev/full") == 1
    last = (folder / "err").read_text(encoding="utf-8").splitlines()[-1]
    assert last.endswith("error: standard output: No space left on device")
    assert (folder / "run" / "model.npz").exists()


def test_every_command_is_tried_without_a_reader():
    assert set(WORDS) == set(COMMANDS)


def test_interrupt_is_one_line(capsys, monkeypatch):
    def interrupt(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "run", interrupt)
    assert main(["bench"]) == 130
    assert one_error_line(capsys) == "fastconv bench: interrupted\n"


def test_info_and_warmup(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert fastconv.__version__ in out
    assert re.search(r"^numba\s+\d", out, re.MULTILINE)
    assert main(["warmup", "--dtype", "float32"]) == 0
    assert re.fullmatch(r"kernels for float32 are ready \([\d.]+ s\)\n", capsys.readouterr().out)


def test_bench_one_problem(capsys):
    words = ["m2", "h9w9c3", "f4", "k3x3", "s1", "p1"]
    assert main(["bench", *words, "--repeat", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "m2 h9w9c3 f4 k3x3 s1 p1"
    assert lines[1].split() == ["product", "ms", "GFLOP/s", "of", "peak"]
    assert [line.split("  ")[0] for line in lines[3:6]] == ["forward", "kernel grad", "input grad"]
    assert re.match(r"peak: numpy\.matmul float32, \d+ threads?: [\d.]+ GFLOP/s", lines[6])


def test_bench_a_table_to_csv(capsys, tmp_path):
    table, figures = tmp_path / "table.txt", tmp_path / "figures.csv"
    table.write_text("# mine\na: h6w6c2 f3 k3\nb: w20c2 f3 k3 s2 p1\n", encoding="utf-8")
    words = [str(table), "--dtype", "float64", "--threads", "1", "--repeat", "2"]
    assert main(["bench", *words, "--csv", str(figures)]) == 0
    assert "float64, 1 thread:" in capsys.readouterr().out
    with figures.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(r["name"], r["product"]) for r in rows[:4]] == [
        ("a", "forward"),
        ("a", "kernel grad"),
        ("a", "input grad"),
        ("b", "forward"),
    ]
    flops = parse_problem("h6w6c2 f3 k3").flops
    assert float(rows[0]["gflops"]) == pytest.approx(flops / float(rows[0]["milliseconds"]) / 1e6)
    share = float(rows[0]["gflops"]) / float(rows[0]["peak_gflops"])
    assert float(rows[0]["share"]) == pytest.approx(share)
    assert {(r["dtype"], r["threads"], r["rounds"]) for r in rows} == {("float64", "1", "2")}


def test_bench_knows_tables_by_name(capsys, monkeypatch):
    timed = []
    monkeypatch.setattr(bench, "_print", lambda rows, problems: timed.extend(problems))
    assert main(["bench", "lenet5_mnist", "--repeat", "1"]) == 0
    assert [p.name for p in timed] == ["C1", "C3", "C5"]


def test_bench_reports_products_that_disagree(capsys, monkeypatch):
    right = fastconv.ConvPlan.input_grad

    def wrong(self, dy, w, *, out=None):
        dx = right(self, dy, w, out=out)
        dx[0, 0, 0, 0] += 1
        return dx

    problem = parse_problem("m1 h6w6c2 f3 k3 p1")
    assert measure(problem, 1).consistent
    monkeypatch.setattr(fastconv.ConvPlan, "input_grad", wrong)
    assert not measure(problem, 1).consistent
    assert main(["bench", "m1 h6w6c2 f3 k3 p1", "--repeat", "1"]) == 1
    assert (
        "WRONG: the three products of m1 h6w6c2 f3 k3x3 s1 p1 disagree" in capsys.readouterr().err
    )


def test_tables_are_aligned(capsys):
    print_table(["name", "kind", "n"], [["a", "long kind", "10"], ["b", "x", "9"]], left=2)
    assert capsys.readouterr().out == (
        "name  kind        n\n----  ---------  --\na     long kind  10\nb     x           9\n"
    )
