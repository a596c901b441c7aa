"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) for whole networks.

`torch.optim.Muon` takes matrices only. Here it is given convolutions as matrices too, and all else
goes to AdamW.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

_MATRIX_OPTIONS = (
    *("lr", "weight_decay", "momentum", "nesterov"),
    *("ns_coefficients", "eps", "ns_steps", "adjust_lr_fn"),
)


class Muon(torch.optim.Optimizer):
    """Muon for matrices and flattened convolutions, AdamW for biases, gains and other vectors.

    A convolution of shape (out, in, height, width) is a matrix of shape (out, in · height · width).
    AdamW's learning rate is `lr * adamw_lr_mult` at every step, so that it follows the schedule and
    the groups' `lr_mult`. `weight_decay` (decoupled) holds for both. The other arguments are those
    of `torch.optim.Muon` and, with `adamw_` before them, of `torch.optim.AdamW`, which check them:
    `ValueError` for impossible ones.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.02,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: Sequence[float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
        adamw_lr_mult: float = 0.05,
        adamw_betas: Sequence[float] = (0.9, 0.999),
        adamw_eps: float = 1e-8,
    ) -> None:
        if not adamw_lr_mult >= 0:
            raise ValueError(f"adamw_lr_mult: {adamw_lr_mult!r} is not allowed; a number ≥ 0")
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": ns_coefficients,
            "eps": eps,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
            "adamw_lr_mult": adamw_lr_mult,
            "adamw_betas": adamw_betas,
            "adamw_eps": adamw_eps,
        }
        # The two optimizers are made anew at each step; here they check what they will be given.
        torch.optim.Muon([torch.zeros(1, 1)], **_matrix_options(defaults))
        torch.optim.AdamW([torch.zeros(1)], **_other_options(defaults))
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Callable[[], Tensor] | None = None
    ) -> Tensor | None:
        """Update every parameter that has a gradient; returns the closure's loss if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._step_matrices()
        self._step_others()
        return loss

    def _step_matrices(self) -> None:
        groups: list[dict[str, Any]] = []
        state: dict[Tensor, dict[str, Tensor]] = {}
        for group in self.param_groups:
            matrices = []
            for parameter, gradient in _moving(group):
                if parameter.ndim >= 2:
                    order = _memory_order(parameter)
                    matrix = _as_matrix(parameter.detach(), order)
                    matrix.grad = gradient.permute(order).reshape(matrix.shape)
                    momentum = _as_matrix(self._momentum(parameter), order)
                    state[matrix] = {"momentum_buffer": momentum}
                    matrices.append(matrix)
            groups.append({"params": matrices, **_matrix_options(group)})
        inner = torch.optim.Muon(groups)
        inner.state.update(state)
        inner.step()

    def _step_others(self) -> None:
        groups = []
        for group in self.param_groups:
            others = [parameter for parameter, _ in _moving(group) if parameter.ndim < 2]
            groups.append({"params": others, **_other_options(group)})
        inner = torch.optim.AdamW(groups)
        # AdamW writes into these dictionaries, which are this optimizer's own state.
        inner.state.update({p: self.state[p] for group in groups for p in group["params"]})
        inner.step()

    def _momentum(self, parameter: Tensor) -> Tensor:
        """The parameter's momentum in its shape and memory format; a loaded one may have another."""
        state = self.state[parameter]
        kept = state.get("momentum_buffer")
        if kept is None:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        elif kept.stride() != parameter.stride():
            state["momentum_buffer"] = torch.empty_like(parameter).copy_(kept)
        return state["momentum_buffer"]


def _moving(group: dict[str, Any]) -> list[tuple[Tensor, Tensor]]:
    """Parameters that are to be updated, with their gradients."""
    return [(p, p.grad) for p in group["params"] if p.grad is not None]


def _matrix_options(group: dict[str, Any]) -> dict[str, Any]:
    return {name: group[name] for name in _MATRIX_OPTIONS}


def _other_options(group: dict[str, Any]) -> dict[str, Any]:
    return {
        "lr": group["lr"] * group["adamw_lr_mult"],
        "betas": group["adamw_betas"],
        "eps": group["adamw_eps"],
        "weight_decay": group["weight_decay"],
    }


def _memory_order(tensor: Tensor) -> tuple[int, ...]:
    """The first dimension, then the others as they follow each other in memory.

    Flattened in this order a tensor becomes a matrix without a copy, in channels_last too. Another
    order of the columns would give the same update: the iteration X ← aX + (bA + cA²)X, A = XXᵀ,
    permutes the columns of its result as those of its argument.
    """
    return (0, *sorted(range(1, tensor.ndim), key=tensor.stride, reverse=True))


def _as_matrix(tensor: Tensor, order: tuple[int, ...]) -> Tensor:
    """The same memory as a matrix: (rows, …) -> (rows, columns)."""
    return tensor.permute(order).view(len(tensor), -1)
