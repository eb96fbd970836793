"""The example CNNs against the same networks on the naive loops, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from fastconv import reference
from fastconv.selfcheck.score import Score

__all__ = ["check_models", "models"]

MODEL_LIMIT = 1e-10  # relative to the largest value: sums of up to 1e4 terms in another order


def models() -> dict[str, Callable[..., Any]]:
    """The example CNNs by name: each entry builds one on the given ops, in float64."""
    from fastconv import examples

    built: dict[str, Callable[..., Any]] = {
        "binary_cnn": partial(_build, examples.binary_cnn),
        "digits_cnn": partial(_build, examples.digits_cnn),
        "fashion_cnn": partial(_build, examples.fashion_cnn, (8, 8, 1)),
    }
    for pool in ("max", "mean"):
        for active in ("sigmoid", "relu"):
            options = {"subsampling": pool, "activation": active}
            name = f"two_conv_cnn, {pool}, {active}"
            built[name] = partial(_build, examples.two_conv_cnn, (16, 16, 1), **options)
    return built


def _build(make: Callable[..., Any], *args: Any, ops: Any, **options: Any) -> Any:
    return make(*args, dtype=np.float64, ops=ops, **options)


def check_models(ops: Any, seed: int = 0) -> list[Score]:
    """Run each example CNN on `ops` and on the naive loops and compare layer by layer.

    Compared are every activation, every delta (gradient with respect to a layer's input) and
    every parameter's gradient, in training mode.

    Parameters
    ----------
    ops : module or namespace
        What is checked.
    seed : int
        Seed of images and labels.

    Returns
    -------
    list of Score
        One per CNN; errors are relative to the largest value of the array.
    """
    scores = []
    for name, build in models().items():
        score = Score(name)
        side = 16 if name.startswith("two") else 8
        rng = np.random.default_rng(seed)
        x = rng.random((3, side, side, 1))
        try:
            found = _pass(build(ops=ops), x)
        except Exception as fault:  # a result like any other: reported as a failure
            score.record_exception("forward and backward", fault)
        else:
            for label, wanted in _pass(build(ops=reference), x).items():
                score.record(label, relative_error(found[label], wanted), MODEL_LIMIT)
        scores.append(score)
    return scores


def _pass(model: Any, x: np.ndarray) -> dict[str, np.ndarray]:
    """Everything one training step computes, by name."""
    from fastconv import nn

    model.train()
    outputs = model.activations(x)
    z = outputs[-1]
    loss = nn.BinaryCrossEntropy() if z.shape[1] == 1 else nn.SoftmaxCrossEntropy()
    loss.forward(z, np.arange(len(x)) % 2)
    deltas = model.deltas(loss.backward())
    found = {}
    for i, layer in enumerate(model.layers):
        kind = f"layer {i} ({type(layer).__name__})"
        found[f"{kind}: activation"] = outputs[i]
        found[f"{kind}: delta"] = deltas[i]
    for parameter in model.parameters():
        found[f"gradient of {parameter.name}"] = parameter.grad
    return found


def relative_error(found: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference, relative to the largest value; infinite where the shape is wrong.

    Examples
    --------
    >>> relative_error(np.array([1.0, 4.0]), np.array([1.0, 5.0]))
    0.2
    """
    if found.shape != wanted.shape:
        return float("inf")
    largest = float(np.abs(wanted).max())
    return float(np.abs(found - wanted).max()) / (largest or 1.0)
