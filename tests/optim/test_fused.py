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
def test_fused_updates_equal_the_loop_but_for_rounding(optimizer):
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
def test_other_optimizers_are_not_fused(optimizer):
    assert fused_arguments(optimizer, CPU) == {}


@pytest.mark.parametrize("device", ["cuda", "meta", "mps"])
def test_other_devices_are_not_fused(device):
    assert fused_arguments(FASTER[0], torch.device(device)) == {}


def test_a_state_saved_by_the_loop_is_continued_by_the_loop():
    weights = [torch.ones(3, requires_grad=True)]
    began = torch.optim.Adam(weights)
    fused = torch.optim.Adam(weights, fused=True)
    fused.load_state_dict(began.state_dict())
    assert not fused.param_groups[0]["fused"]


@pytest.mark.parametrize("optimizer", FASTER)
def test_fused_updates_of_thawing_weights_equal_the_loop(optimizer):
    """Some weights get their first gradient later than others."""
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
