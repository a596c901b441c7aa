"""Optimizers that the device can step by itself: how they are made, and that their rule stays the loop's."""

from functools import partial

import pytest
import torch

from deepexp.optim.capturable import REPLAYED, begin_momentum, capturable_arguments, is_capturable


@pytest.mark.parametrize("cls", REPLAYED, ids=lambda cls: cls.__name__)
def test_torch_takes_the_arguments(cls):
    arguments = capturable_arguments(partial(cls, lr=0.1))
    made = cls([torch.ones(2, requires_grad=True)], lr=torch.tensor(0.1), **arguments)
    assert is_capturable(made)
    assert not is_capturable(cls([torch.ones(2, requires_grad=True)], lr=0.1))


@pytest.mark.parametrize(
    "optimizer",
    [partial(torch.optim.Adagrad), partial(torch.optim.LBFGS), partial(torch.optim.Adam, fused=False)],
    ids=["no way", "closure", "told how"],
)
def test_others_stay_as_they_are(optimizer):
    assert capturable_arguments(optimizer) == {}
    assert not is_capturable(optimizer([torch.ones(2, requires_grad=True)]))


def test_a_dampened_momentum_stays_the_loops():
    weight = torch.ones(2, requires_grad=True)
    made = torch.optim.SGD([weight], lr=0.1, momentum=0.9, dampening=0.5, fused=True)
    assert not is_capturable(made)
    weight.grad = torch.ones(2)
    begin_momentum(made)
    assert made.state_dict()["state"] == {}


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_of_weights_that_thaw_is_that_of_the_loop(nesterov):
    """torch's fused SGD refuses gradients of which only some have a momentum."""
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


def test_no_momentum_is_made_where_there_is_none():
    weight = torch.ones(3, requires_grad=True)
    weight.grad = torch.ones(3)
    for made in (torch.optim.SGD([weight], lr=0.1, fused=True), torch.optim.Adam([weight], lr=0.1)):
        begin_momentum(made)
        assert made.state_dict()["state"] == {}
