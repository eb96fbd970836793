"""The layers of ONNX nodes that normalise."""

from __future__ import annotations

import numpy as np

from fastconv.nn.onnx.base import Node, State, Tree, arrays, images, in_our_order

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm"]


def batch_norm(node: Node, state: State) -> tuple[list[Tree], State]:
    """Normalisation with the running statistics."""
    if state.rank > 2 and state.order != "first" and not state.pooled:
        raise node.error("images with channels first are needed")
    if node.attributes.get("training_mode", 0):
        raise node.error("the file is in training mode")
    found = [in_our_order(node, node.constant(i), state.turned) for i in range(1, 5)]
    leaf = node.layer(
        "BatchNorm", channels=len(found[0]), momentum=0.9,
        epsilon=node.number("epsilon", 1e-5), dtype=state.dtype.name,
    )  # fmt: skip
    names = ("scale", "shift", "running_mean", "running_variance")
    leaf.arrays = arrays(state, **dict(zip(names, found, strict=True)))
    return [leaf], state


def layer_norm(node: Node, state: State) -> tuple[list[Tree], State]:
    """Normalisation of the last axis, where the channels are."""
    if state.order != "last" or state.pooled:
        raise node.error("images with channels last, or rows, are needed")
    if int(node.attributes.get("axis", -1)) % state.rank != state.rank - 1:
        raise node.error("only the last axis is normalised")
    if any(node.proto.output[1:]):
        raise node.error("its second result is not understood")
    scale = in_our_order(node, node.constant(1).reshape(-1), state.turned)
    shift = node.constant_or_none(2)
    shift = np.zeros_like(scale) if shift is None else shift.reshape(-1)
    return _filled(node, state, "LayerNorm", scale, in_our_order(node, shift, state.turned))


def instance_norm(node: Node, state: State) -> tuple[list[Tree], State]:
    """Normalisation of each channel."""
    images(node, state)
    return _filled(node, state, "InstanceNorm", node.constant(1), node.constant(2))


def group_norm(node: Node, state: State) -> tuple[list[Tree], State]:
    """Normalisation of groups of channels."""
    rows = state.rank == 2 and state.turned == 1
    if not rows:
        images(node, state)
    groups = int(node.attributes["num_groups"])
    scale, shift = (node.constant(i).reshape(-1) for i in (1, 2))
    if state.channels is not None and len(scale) == groups:  # opset 18: one number a group
        scale, shift = (np.repeat(a, state.channels // groups) for a in (scale, shift))
    if len(scale) == groups and not rows:
        return _filled(node, state, "InstanceNorm", scale, shift)
    return _filled(node, state, "GroupNorm", scale, shift, groups=groups)


def _filled(
    node: Node, state: State, kind: str, scale: np.ndarray, shift: np.ndarray, **arguments: int
) -> tuple[list[Tree], State]:
    leaf = node.layer(
        kind, **arguments, channels=len(scale), epsilon=node.number("epsilon", 1e-5),
        dtype=state.dtype.name,
    )  # fmt: skip
    leaf.arrays = arrays(state, scale=scale, shift=shift)
    return [leaf], state
