"""Batch normalisation behind a convolution or a linear layer, made a part of that layer for use after training.

Then the statistics are constants, and γ (Wx + b - μ) / √(σ² + ε) + β is the layer with the weights γW / √(σ² + ε) and
the bias γ (b - μ) / √(σ² + ε) + β (Jacob et al. 2017, section 3.2).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, fx

_ATEN = torch.ops.aten
_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")


@dataclass(frozen=True)
class Folded:
    """How many batch normalisations of a graph are now part of the layer before them."""

    count: int
    of: int


def fold_batch_norm(graph_module: fx.GraphModule) -> Folded:
    """Fold each batch normalisation that is the only user of a convolution's or linear layer's output, in place.

    `graph_module`: the module of an `ExportedProgram` in test mode, whose nodes are operators of ATen. New weights are
    computed in float64. Left alone are those behind anything else, and those that use the statistics of their batch.
    """
    graph = graph_module.graph
    norms = batch_norms(graph_module)
    count = 0
    for norm in norms:
        layer = norm.args[0]
        if not (isinstance(layer, fx.Node) and _can_take(graph_module, layer, norm)):
            continue
        weight, bias = _folded_weights(graph_module, layer, norm)
        names = [f"folded_{count}_{part}" for part in ("weight", "bias")]
        with graph.inserting_before(layer):
            for name, value in zip(names, (weight, bias), strict=True):
                graph_module.register_parameter(name, torch.nn.Parameter(value, requires_grad=False))
            nodes = [graph.get_attr(name) for name in names]
        layer.args = (layer.args[0], *nodes, *layer.args[3:])
        norm.replace_all_uses_with(layer)
        graph.erase_node(norm)
        count += 1
    graph.eliminate_dead_code()
    _forget_unused(graph_module)
    graph_module.recompile()
    return Folded(count, len(norms))


def batch_norms(graph_module: fx.GraphModule) -> list[fx.Node]:
    """The nodes of a graph that are batch normalisations."""
    return [node for node in graph_module.graph.nodes if node.target == _ATEN.batch_norm.default]


def _can_take(graph_module: fx.GraphModule, layer: fx.Node, norm: fx.Node) -> bool:
    """Whether the batch normalisation of a layer's output can be folded into the layer."""
    if layer.target != _ATEN.linear.default and getattr(layer.target, "_opname", None) not in _CONVOLUTIONS:
        return False
    takes_batch_statistics = norm.args[5] is not False
    # Weights and bias, scale and shift, mean and variance: some may be missing.
    values = [node for node in (*layer.args[1:3], *norm.args[1:5]) if node is not None]
    if len(layer.users) > 1 or takes_batch_statistics or layer.kwargs or not all(map(_is_constant, values)):
        return False
    # With another number of dimensions than the weights have, it is not the layer's outputs that are normalised.
    return layer.meta["val"].dim() == _value(graph_module, layer.args[1]).dim()


def _is_constant(node: object) -> bool:
    return isinstance(node, fx.Node) and node.op == "get_attr"


def _folded_weights(graph_module: fx.GraphModule, layer: fx.Node, norm: fx.Node) -> tuple[Tensor, Tensor]:
    """Weight and bias of the layer that does the work of both, in the layer's own type."""

    def value(node: object, default: float) -> Tensor:
        if node is None:
            return torch.full((len(weight),), default, dtype=torch.float64)
        return _value(graph_module, node).double()

    weight = _value(graph_module, layer.args[1])  # (outputs, …)
    bias = value(layer.args[2] if len(layer.args) > 2 else None, 0.0)  # (outputs,)
    _, gamma, beta, mean, variance, _, _, epsilon, _ = norm.args
    assert isinstance(epsilon, float)
    scale = value(gamma, 1.0) / (value(variance, 1.0) + epsilon).sqrt()  # (outputs,)
    folded = weight.double() * scale.view(-1, *(1 for _ in weight.shape[1:]))
    shift = (bias - value(mean, 0.0)) * scale + value(beta, 0.0)
    return folded.to(weight.dtype), shift.to(weight.dtype)


def _value(graph_module: fx.GraphModule, node: object) -> Tensor:
    """The parameter or buffer that a node takes."""
    assert isinstance(node, fx.Node)
    *folders, name = str(node.target).split(".")
    found = getattr(graph_module.get_submodule(".".join(folders)), name)
    assert isinstance(found, Tensor)
    return found.detach()


def _forget_unused(graph_module: fx.GraphModule) -> None:
    """Delete the parameters and buffers that no node of the graph takes any more."""
    used = {str(node.target) for node in graph_module.graph.nodes if node.op == "get_attr"}
    held = [name for name, _ in [*graph_module.named_parameters(), *graph_module.named_buffers()]]
    for path in held:
        if path not in used:
            *folders, name = path.split(".")
            delattr(graph_module.get_submodule(".".join(folders)), name)
