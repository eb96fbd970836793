"""The scaling study: its model, and that it says and draws what was measured."""

import sys
from importlib import import_module
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
scaling = import_module("scaling")

LINK = scaling.Link(3e-6, 1 / 2e9, 1 / 6e9)


def test_a_link_is_found_again_from_its_exchanges():
    sizes = [4 * n for n in scaling.SIZES]
    found = scaling.fitted(sizes, [LINK.allreduce(2, n) for n in sizes], LINK.gamma)
    assert found == pytest.approx(LINK)


def test_an_exchange_moves_as_much_as_a_ring():
    assert LINK.exchanges(1, 1e6) == 0
    free = LINK._replace(alpha=0.0, gamma=0.0)
    assert free.allreduce(2, 1e6) == pytest.approx(1e6 / 2e9)
    assert free.allreduce(1024, 1e6) == pytest.approx(2 * 1023 / 1024 * 1e6 / 2e9)
    assert LINK.small(1024) == pytest.approx(10 * LINK.alpha + 1023 * 64 * LINK.beta)


def test_the_study_is_told_and_drawn(monkeypatch, capsys, tmp_path):
    """The model goes through the measured point; no process is started."""
    exchange = {
        "seconds": [LINK.allreduce(2, 4 * n) for n in scaling.SIZES],
        "gammas": [LINK.gamma, LINK.gamma],
        "small": 3e-6,
        "hidden": 0.0,
    }
    measured = {("alone", 1): 1e-3, ("alone", 2): 1.1e-3, ("together", 2): 1.25e-3}

    def on_ranks(count, kind, *words):
        return exchange if kind == "exchange" else measured[kind, count]

    monkeypatch.setattr(scaling, "on_ranks", on_ranks)
    assert scaling.main(["lenet5", "--out", str(tmp_path / "scaling.png")]) == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines() if line.startswith("lenet5")]
    assert rows[0][3:] == ["1.000", "1.100", "1.250", "0.91", "0.80", "0.88"]
    assert rows[1][4:6] == ["1.00", "0.80"]
    assert [float(x) for x in rows[1][4:]] == sorted((float(x) for x in rows[1][4:]), reverse=True)
    assert (tmp_path / "scaling.png").stat().st_size > 10_000


def test_a_mistyped_network_is_refused(capsys):
    with pytest.raises(SystemExit):
        scaling.main(["lenet6"])
    assert "lenet6: not one of seed, " in capsys.readouterr().err
