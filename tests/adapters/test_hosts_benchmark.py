"""``benchmarks/hosts.py``: answers are checked, hosts may be missing, figures are printed."""

import re
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
hosts = import_module("hosts")
Case = import_module("host_cases").Case

QUICK = ["--repeat", "1", "--seconds", "0.01"]


@pytest.fixture
def fake(monkeypatch):
    """A host of the given cases."""

    def install(*cases):
        monkeypatch.setattr(hosts, "HOSTS", ["fake"])
        monkeypatch.setitem(
            sys.modules, "host_cases.fake", SimpleNamespace(cases=lambda: list(cases))
        )

    return install


def same(value):
    return lambda: [np.full(3, value), (np.zeros(2),)]


def test_a_right_answer_is_timed(fake, capsys):
    fake(Case("both", same(1.0), same(1.00001)))
    assert hosts.main(QUICK) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"fake  both +[\d.]+ +[\d.]+ +[\d.]+", last)


@pytest.mark.parametrize(
    ("ours", "why"),
    [
        (same(1.01), "the largest difference is 0.01"),
        (lambda: [np.ones(3)], "2 and 1 arrays"),
        (lambda: [np.ones(4), np.zeros(2)], r"shapes (3,) and (4,)"),
        (lambda: [np.full(3, np.nan), np.zeros(2)], "the largest difference is nan"),
    ],
)
def test_a_wrong_answer_is_not_timed(fake, capsys, ours, why):
    fake(Case("wrong", same(1.0), ours), Case("right", same(1.0), same(1.0)))
    assert hosts.main(QUICK) == 1
    out, err = capsys.readouterr()
    assert f"WRONG: fake, wrong: {why}" in err
    assert "right" in out
    assert "wrong" not in out


def test_a_missing_host_is_left_out(monkeypatch, capsys):
    monkeypatch.setattr(hosts, "HOSTS", ["none"])
    assert hosts.main(QUICK) == 0
    assert "none is left out: No module named 'host_cases.none'" in capsys.readouterr().out


def test_an_unknown_host_is_one_line(capsys):
    with pytest.raises(SystemExit) as exit_:
        hosts.main(["onnxx"])
    assert exit_.value.code == 2
    assert "'onnxx' is not one of" in capsys.readouterr().err


def test_onnx_for_real(capsys):
    assert hosts.main(["onnx", *QUICK]) == 0
    assert len(re.findall(r"^onnx  ", capsys.readouterr().out, re.MULTILINE)) >= 4
