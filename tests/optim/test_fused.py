"""Fused updates: chosen where they are faster, and the same as torch's loop over parameters but for rounding."""

from functools import partial

import pytest
import torch

from deepexp.models.mnist_net import MnistNet
from deepexp.optim.fused import fused_arguments

CPU = torch.device("cpu")
FASTER = [
    partial(torch.optim.Adam, lr=1e-3),
    partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.1),
    partial(torch.optim.Adam, lr=1e-3, amsgrad=True),
]


@pytest.mark.parametrize("optimizer", FASTER)
def test_weights_are_those_of_the_loop_but_for_rounding(optimizer):
    """A hundred updates with the same gradients."""
    torch.manual_seed(0)
    nets = [MnistNet(shape=(1, 28, 28), classes=10).to(memory_format=torch.channels_last) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    arguments = fused_arguments(optimizer, CPU)
    assert arguments == {"fused": True}
    loop, fused = optimizer(nets[0].parameters()), optimizer(nets[1].parameters(), **arguments)
    for _ in range(100):
        for ours, theirs in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
            ours.grad = torch.randn_like(ours)
            theirs.grad = ours.grad.clone()
        loop.step()
        fused.step()
    for (name, expected), weight in zip(nets[0].named_parameters(), nets[1].parameters(), strict=True):
        assert not torch.equal(expected, torch.zeros_like(expected))
        torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    "optimizer",
    [
        partial(torch.optim.SGD, lr=0.1),
        partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        partial(torch.optim.RMSprop, lr=0.1),
        partial(torch.optim.Adam, lr=0.1, fused=False),
        partial(torch.optim.Adam, lr=0.1, foreach=True),
    ],
)
def test_others_stay_as_they_are(optimizer):
    assert fused_arguments(optimizer, CPU) == {}


@pytest.mark.parametrize("device", ["cuda", "meta", "mps"])
def test_other_devices_stay_as_they_are(device):
    assert fused_arguments(FASTER[0], torch.device(device)) == {}


def test_a_run_that_began_with_the_loop_goes_on_with_it():
    weights = [torch.ones(3, requires_grad=True)]
    began = torch.optim.Adam(weights)
    fused = torch.optim.Adam(weights, fused=True)
    fused.load_state_dict(began.state_dict())
    assert not fused.param_groups[0]["fused"]


@pytest.mark.parametrize("optimizer", FASTER)
def test_weights_that_thaw_are_taken_up(optimizer):
    """Some get their first gradient after others, as in the loop."""
    results = []
    for arguments in ({}, fused_arguments(optimizer, CPU)):
        weights = [torch.ones(3, requires_grad=True) for _ in range(2)]
        made = optimizer(weights, **arguments)
        for step in range(4):
            weights[0].grad = torch.full((3,), 0.5)
            weights[1].grad = None if step < 2 else torch.full((3,), -0.5)
            made.step()
        results.append(torch.stack([weight.detach() for weight in weights]))
    torch.testing.assert_close(*results)
    assert (results[0][1] > 0.9).all() and (results[0][1] != results[0][0]).all()
