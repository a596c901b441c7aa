"""Optimizers whose step can be captured in a CUDA graph: their arguments, and that the update rule stays the same."""

from functools import partial

import pytest
import torch

from deepexp.optim.capturable import REPLAYED, begin_momentum, capturable_arguments, is_capturable


@pytest.mark.parametrize("cls", REPLAYED, ids=lambda cls: cls.__name__)
def test_torch_accepts_the_arguments_for_capturing(cls):
    arguments = capturable_arguments(partial(cls, lr=0.1))
    made = cls([torch.ones(2, requires_grad=True)], lr=torch.tensor(0.1), **arguments)
    assert is_capturable(made)
    assert not is_capturable(cls([torch.ones(2, requires_grad=True)], lr=0.1))


@pytest.mark.parametrize(
    "optimizer",
    [partial(torch.optim.Adagrad), partial(torch.optim.LBFGS), partial(torch.optim.Adam, fused=False)],
    ids=["not supported", "closure", "set by the user"],
)
def test_other_optimizers_get_no_arguments(optimizer):
    assert capturable_arguments(optimizer) == {}
    assert not is_capturable(optimizer([torch.ones(2, requires_grad=True)]))


def test_momentum_with_dampening_is_not_capturable():
    weight = torch.ones(2, requires_grad=True)
    made = torch.optim.SGD([weight], lr=0.1, momentum=0.9, dampening=0.5, fused=True)
    assert not is_capturable(made)
    weight.grad = torch.ones(2)
    begin_momentum(made)
    assert made.state_dict()["state"] == {}


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_of_thawing_weights_equals_the_loop(nesterov):
    """torch's fused SGD refuses parameters of which only some have a momentum."""
    results = []
    for fused in (False, True):
        weights = [torch.ones(3, requires_grad=True) for _ in range(2)]
        made = torch.optim.SGD(weights, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=nesterov, fused=fused)
        for step in range(5):
            weights[0].grad = torch.full((3,), 0.5)
            weights[1].grad = None if step < 2 else torch.full((3,), -0.5)
            if fused:
                begin_momentum(made)
            made.step()
        results.append(torch.stack([weight.detach() for weight in weights]))
    torch.testing.assert_close(*results)
    assert (results[0][1] != 1).all()


def test_begin_momentum_adds_none_to_optimizers_without_it():
    weight = torch.ones(3, requires_grad=True)
    weight.grad = torch.ones(3)
    for made in (torch.optim.SGD([weight], lr=0.1, fused=True), torch.optim.Adam([weight], lr=0.1)):
        begin_momentum(made)
        assert made.state_dict()["state"] == {}
