"""The bare loop makes deepexp's own updates, and names the options that it does not support."""

import pytest
import torch

from deepexp.bench import bare, ours
from deepexp.bench.contender import Unsuited

from .setting import planned


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["optim=adam", "optim.lr=0.001"],
        ["precision=bf16"],
        ["model=monster", "model.pretrained=false"],
        ["freeze=[{pattern: 'conv1.*', share: 0.5}]"],
    ],
)
def test_it_makes_the_updates_of_a_run(overrides):
    """With the same order of samples, the weights after an epoch and the test errors equal deepexp's bit for bit."""
    config, plan = planned("order=sequential", "batch_size=30", "data.subset=100", *overrides)
    with ours.opened(config, plan) as run, pytest.MonkeyPatch.context() as patch:
        result = run.epoch()
        expected = {name: weight.clone() for name, weight in run._parts.model.state_dict().items()}
        patch.setattr(torch, "randperm", torch.arange)
        with bare.opened(config, plan) as loop:
            assert loop.epoch().test_error_rate == result.test_error_rate
            for name, weight in loop._model.state_dict().items():
                assert torch.equal(weight, expected[name]), name


def test_steps_continue_into_the_next_epoch(monkeypatch):
    config, plan = planned("data.subset=100", "batch_size=30")
    made = []
    step = torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", lambda *a, **k: made.append(1) or step(*a, **k))
    with bare.opened(config, plan) as loop:
        assert loop.steps(11) > 0
    assert len(made) == 11


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("augment=crop_flip", "augmentation"),
        ("clip_grad_norm=1", "clip_grad_norm"),
        ("ema=0.9", "ema"),
        ("accumulate=2", "several batches"),
        ("label_smoothing=0.1", "loss"),
        ("class_weights=balanced", "loss"),
        ("loss=focal", "loss"),
        ("loss_reduction=sum", "loss"),
        ("optim=lbfgs", "line search"),
    ],
)
def test_options_it_does_not_support_are_named(override, what):
    config, plan = planned(override)
    with pytest.raises(Unsuited, match=what), bare.opened(config, plan):
        pass
