"""A training step as one program, made once for a model and the shape of a batch.

The path of a step: lower (every layer says what it does, forward and backward) -> place (values
into one arena) -> bind (calls of compiled entries) -> run (one launch). See `fastconv.program`.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from typing import Any

import numpy as np

from fastconv import threads
from fastconv.nn.base import Array, Layer, check_array, positive_int
from fastconv.nn.losses import Loss
from fastconv.nn.optimizers import Optimizer
from fastconv.program.graph import Graph, Value
from fastconv.program.machine import Program, Timing

__all__ = ["StepPlan", "plan_step", "step_for"]

# Plans that a model keeps for `train_step`, which is called with whatever batches come.
KEPT = 8


class _Batch:
    """The program for batches of one size."""

    def __init__(self, model: Layer, loss: Loss, optimizer: Optimizer, x_shape: Any, dtype: Any):
        graph = self.graph = Graph()
        self.x = graph.value(x_shape, dtype, kept=True)
        with graph.inside(""):
            self.z, backward = model.lower(graph, self.x)
        lowered = loss.lower(graph, self.z)
        self.value, self.accept = lowered.value, lowered.accept
        backward(lowered.dz, False)
        optimizer.lower(graph)
        self.z.root.kept = True
        self.program = Program(graph)
        self.arrays = {value: self.program.array(value) for value in (self.x, self.z, self.value)}

    def run(self, x: Array, y: Any) -> tuple[float, Array]:
        """One step."""
        z = self.arrays[self.z]
        self.accept(self.program, z, y)
        np.copyto(self.arrays[self.x], x)
        for function in self.graph.before:
            function()
        if self.program.run():
            for function in self.graph.after:
                function()
        return float(self.arrays[self.value][()]), z
