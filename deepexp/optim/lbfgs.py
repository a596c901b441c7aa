"""L-BFGS (Nocedal 1980; Liu and Nocedal 1989) on mini-batches and weights in any memory format."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor


class LBFGS(torch.optim.LBFGS):
    """`torch.optim.LBFGS` with two things changed.

    It takes the gradients of channels_last weights, which torch's cannot join into one vector. And
    unless `keep_history`, each step starts without the curvature pairs of the step before: a pair
    is a difference of two gradients, and between two mini-batches that is mostly the difference of
    their samples (Berahas et al. 2016, section 3). With them, networks with batch normalisation
    were seen to train to a test error of chance. On full batches keeping them saves work.

    `step` calls its closure several times; it clears the gradients, computes the loss, fills them.
    """

    refuses: ClassVar[Mapping[str, str]] = {
        "groups": "it has one step length and one estimate of the curvature for all parameters",
        "fp16": "its line search compares losses and slopes, and loss scaling changes the slopes",
    }

    def __init__(
        self,
        params: Any,
        lr: float = 1.0,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
        keep_history: bool = False,
    ) -> None:
        if line_search_fn not in (None, "strong_wolfe"):
            raise ValueError(f"line_search_fn: {line_search_fn!r} is not allowed; 'strong_wolfe' or null")
        super().__init__(params, lr, max_iter, max_eval, tolerance_grad, tolerance_change, history_size, line_search_fn)
        self.param_groups[0]["keep_history"] = keep_history  # saved and copied with the others

    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]
        """One step of at most `max_iter` iterations; returns the loss before it."""
        group = self.param_groups[0]
        if not group["keep_history"]:
            self.state.clear()

        def with_contiguous_gradients() -> Tensor:
            loss = closure()
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad = parameter.grad.contiguous()
            return loss

        return super().step(with_contiguous_gradients)
