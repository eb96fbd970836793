"""The numbers of ``fastconv explain``: one image through ``binary_cnn``, forward and backward.

Every array is computed by the package's public functions, step by step, so that what is printed
is what training uses. The equation numbers are those of `fastconv.reference`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any

import numpy as np

from fastconv.nn import sigmoid

__all__ = ["EQUATIONS", "Flow", "Parameters", "trace"]

EQUATIONS = {
    "z1": "(1) z1[i,j] = b1 + sum_uv x[i+u, j+v] w1[u,v]",
    "a1": "(2) a1 = max(z1, 0)",
    "a2": "(3) a2 = max of each 2x2 window of a1",
    "z3": "(4) z3 = a2 @ w3 + b3",
    "a3": "(5) a3 = 1 / (1 + exp(-z3))",
    "loss": "(6) L = -y log(a3) - (1 - y) log(1 - a3)",
    "dz3": "(7) dL/dz3 = a3 - y",
    "da2": "(8) dL/da2 = dL/dz3 @ w3.T",
    "da1": "(9) dL/da1 = dL/da2 at each window's winner, 0 at the other three",
    "delta1": "(10) delta1 = dL/da1 * (z1 > 0)",
    "dw1": "(11) dw1[u,v] = sum_ij delta1[i,j] x[i+u, j+v]",
    "db1": "(11) db1 = sum_ij delta1[i,j]",
}


@dataclass(frozen=True)
class Parameters:
    """The 20 parameters of `binary_cnn`: w1 (3, 3), b1, w3 (9,), b3."""

    w1: np.ndarray
    b1: float
    w3: np.ndarray
    b3: float


@dataclass(frozen=True)
class Flow:
    """Every number of one forward and one backward pass, in the order of the explanation.

    Grids are 2-D arrays without the batch and channel axes. ``winners`` holds, for each window,
    the flat index ``i*6 + j`` of the element of a1 that was chosen. ``passed`` is False for a
    window whose winner the ReLU had set to zero: its error stops there.
    """

    x: np.ndarray
    y: int
    parameters: Parameters
    z1: np.ndarray
    a1: np.ndarray
    a2: np.ndarray
    winners: np.ndarray
    z3: float
    a3: float
    loss: float
    dz3: float
    dw3: np.ndarray
    db3: float
    da2: np.ndarray
    da1: np.ndarray
    delta1: np.ndarray
    dw1: np.ndarray
    db1: float
    dw1_numeric: np.ndarray

    @property
    def passed(self) -> np.ndarray:
        """For each window, whether its winner's error passes the ReLU."""
        mask: np.ndarray = self.z1.ravel()[self.winners] > 0
        return mask

    def as_dict(self) -> dict[str, Any]:
        """Everything as lists and numbers, for JSON."""
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "parameters"}
        p = self.parameters
        found |= {"w1": p.w1, "b1": p.b1, "w3": p.w3, "b3": p.b3, "passed": self.passed}
        lists = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in found.items()}
        width = self.z1.shape[1]
        lists["winner_cells"] = [[list(divmod(i, width)) for i in row] for row in lists["winners"]]
        lists["equations"] = EQUATIONS
        return lists


def trace(x: np.ndarray, y: int, parameters: Parameters, ops: ModuleType) -> Flow:
    """Run one image forward and backward and keep every intermediate result.

    Parameters
    ----------
    x : ndarray of float64, shape (8, 8)
        The image.
    y : int
        Its label, 0 or 1.
    parameters : Parameters
        The model's parameters.
    ops : module
        `fastconv` or `fastconv.reference`.

    Returns
    -------
    Flow

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import reference
    >>> start = Parameters(np.ones((3, 3)), 0.0, np.ones(9), 0.0)
    >>> flow = trace(np.eye(8), 1, start, reference)
    >>> flow.a2.shape, flow.dw1.shape
    ((3, 3), (3, 3))
    >>> bool(flow.dz3 == flow.a3 - 1)
    True
    """
    image, p = x[None, :, :, None], parameters
    w1, b1 = p.w1[:, :, None, None], np.array([p.b1])
    z1 = ops.conv(image, w1, b1)  # (1, 6, 6, 1)
    a1 = np.maximum(z1, 0)
    a2, winners = ops.max_pool(a1, 2, return_argmax=True)  # (1, 3, 3, 1)
    z3 = float(a2.ravel() @ p.w3 + p.b3)
    a3 = float(sigmoid(np.array(z3)))

    dz3 = a3 - y
    da2 = (dz3 * p.w3).reshape(a2.shape)
    da1 = ops.max_pool_backward(da2, winners, a1.shape, 2)
    delta1 = da1 * (z1 > 0)
    dw1 = ops.conv_kernel_grad(image, delta1, w1.shape)
    return Flow(
        x=x,
        y=y,
        parameters=p,
        z1=z1[0, :, :, 0],
        a1=a1[0, :, :, 0],
        a2=a2[0, :, :, 0],
        winners=winners[0, :, :, 0],
        z3=z3,
        a3=a3,
        loss=_loss(z3, y),
        dz3=dz3,
        dw3=dz3 * a2.ravel(),
        db3=dz3,
        da2=da2[0, :, :, 0],
        da1=da1[0, :, :, 0],
        delta1=delta1[0, :, :, 0],
        dw1=dw1[:, :, 0, 0],
        db1=float(delta1.sum()),
        dw1_numeric=_numeric_dw1(image, y, p, ops),
    )


def _loss(z3: float, y: int) -> float:
    """Cross-entropy from the logit: log(1 + exp(-z3)) for y = 1, log(1 + exp(z3)) for y = 0."""
    return float(np.logaddexp(0, -z3 if y == 1 else z3))


def _numeric_dw1(image: np.ndarray, y: int, p: Parameters, ops: ModuleType) -> np.ndarray:
    """Gradient dw1 from the loss alone: central differences, one weight at a time."""
    step = 1e-6
    dw1 = np.empty_like(p.w1)
    for u, v in np.ndindex(p.w1.shape):
        sides = []
        for sign in (1, -1):
            w1 = p.w1.copy()
            w1[u, v] += sign * step
            a1 = np.maximum(ops.conv(image, w1[:, :, None, None], np.array([p.b1])), 0)
            sides.append(_loss(float(ops.max_pool(a1, 2).ravel() @ p.w3 + p.b3), y))
        dw1[u, v] = (sides[0] - sides[1]) / (2 * step)
    return dw1
