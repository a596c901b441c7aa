from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from deepexp.optim.freeze import FreezePlan
from deepexp.optim.lbfgs import LBFGS
from deepexp.optim.muon import Muon

OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1),
    "adam": partial(torch.optim.Adam, lr=0.01, weight_decay=0.1),
    "adamw": partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1),
    "muon": partial(Muon, lr=0.02, weight_decay=0.1),
    "lbfgs": partial(LBFGS, lr=0.1, max_iter=2),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    head = nn.Sequential(nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    model = nn.Sequential()
    model.add_module("stem", stem)
    model.add_module("head", head)
    return model.to(memory_format=torch.channels_last)


def train(model: nn.Module, plan: FreezePlan, optimizer: torch.optim.Optimizer, steps: int = 3) -> None:
    """Some updates as a run makes them, on random pictures."""
    model.train()
    plan.eval_frozen()
    for _ in range(steps):
        pictures, labels = torch.randn(8, 3, 8, 8), torch.randint(5, (8,))

        def closure(pictures: Tensor = pictures, labels: Tensor = labels) -> Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(pictures), labels)
            loss.backward()
            return loss.detach()

        optimizer.step(closure)


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_layers_stand_still_to_the_bit_and_move_afterwards(name: str) -> None:
    model = network()
    optimizer = OPTIMIZERS[name](model.parameters())
    train(model, FreezePlan(model, [], 2), optimizer)  # there is momentum before anything is frozen
    plan = FreezePlan(model, [{"pattern": "stem.*", "epochs": 1}], 2)
    start = snapshot(model)
    stem = {key for key in start if key.startswith("stem.")}
    assert {"stem.0.weight", "stem.1.running_mean", "stem.1.running_var", "stem.1.num_batches_tracked"} < stem

    plan.apply(0)
    assert all(p.grad is None for p in model.get_submodule("stem").parameters())
    train(model, plan, optimizer)
    assert all(p.grad is None for p in model.get_submodule("stem").parameters())
    frozen = snapshot(model)
    assert moved(start, frozen) == set(start) - stem

    plan.apply(1)
    train(model, plan, optimizer)
    assert moved(frozen, snapshot(model)) == set(start)


@pytest.mark.parametrize(
    ("rule", "epochs", "expected"),
    [
        ({"share": 0.5}, 100, 50),
        ({"share": 0.5}, 5, 2),
        ({"share": 0.29}, 100, 29),
        ({"share": 1.0}, 4, 4),
        ({"share": 0.0}, 4, 0),
        ({"epochs": 3}, 100, 3),
        ({"epochs": 3, "share": None}, 100, 3),
        ({"epochs": 9}, 4, 4),
    ],
)
def test_duration_of_freezing_by_epochs_and_share(rule: dict[str, float], epochs: int, expected: int) -> None:
    model = network()
    plan = FreezePlan(model, [{"pattern": "stem.0.weight", **rule}], epochs)
    frozen = 0
    for epoch in range(epochs):
        plan.apply(epoch)
        frozen += not model.get_parameter("stem.0.weight").requires_grad
    assert frozen == expected


def test_the_first_matching_rule_wins_and_other_parameters_are_left_alone() -> None:
    model = network()
    model.get_parameter("head.4.bias").requires_grad_(False)  # frozen by the user, not by a rule
    plan = FreezePlan(model, [{"pattern": "stem.0.*", "epochs": 1}, {"pattern": "stem.*", "epochs": 3}], 4)
    frozen = []
    for epoch in range(4):
        plan.apply(epoch)
        frozen.append({name for name, p in model.named_parameters() if not p.requires_grad} - {"head.4.bias"})
        assert not model.get_parameter("head.4.bias").requires_grad
    norm = {"stem.1.weight", "stem.1.bias"}
    assert frozen == [{"stem.0.weight"} | norm, norm, norm, set()]


def test_frozen_epochs_of_several_parameters_is_the_least() -> None:
    model = network()
    plan = FreezePlan(model, [{"pattern": "stem.0.*", "epochs": 1}, {"pattern": "stem.*", "epochs": 3}], 4)
    norm, whole = model.get_submodule("stem.1"), model.get_submodule("stem")
    assert plan.frozen_epochs(norm.parameters()) == 3
    assert plan.frozen_epochs(whole.parameters()) == 1
    assert plan.frozen_epochs(model.parameters()) == 0
    assert plan.frozen_epochs([]) == 0


def test_batch_norm_statistics_stop_only_with_all_parameters_of_the_layer() -> None:
    model = network()
    plan = FreezePlan(model, [{"pattern": "*.1.weight", "epochs": 1}, {"pattern": "stem.1.bias", "epochs": 1}], 2)
    plan.apply(0)
    model.train()
    plan.eval_frozen()
    assert not model.get_submodule("stem.1").training
    assert model.get_submodule("head.1").training
    plan.apply(1)
    model.train()
    plan.eval_frozen()
    assert model.get_submodule("stem.1").training


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([{"pattern": "stme.*", "epochs": 1}], r"freeze\[0\].pattern: 'stme.\*' matches no.*did you mean 'stem.\*'"),
        ([{"pattern": "*", "epochs": 1}, {"pattern": "head.*", "epochs": 2}], r"freeze\[1\].pattern: .*rules before"),
        ([{"pattern": "stem.*"}], r"freeze\[0\]: needs either share or epochs"),
        ([{"pattern": "stem.*", "share": 0.5, "epochs": 1}], r"freeze\[0\]: needs either share or epochs"),
        ([{"pattern": "stem.*", "share": 1.5}], r"freeze\[0\].share: 1.5"),
        ([{"pattern": "stem.*", "epochs": -1}], r"freeze\[0\].epochs: -1"),
    ],
)
def test_impossible_rules_are_errors(rules: list[dict], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FreezePlan(network(), rules, 10)


def test_a_plan_can_be_checked_on_the_meta_device() -> None:
    make: Callable[[], nn.Module] = network
    with torch.device("meta"):
        model = make()
    FreezePlan(model, [{"pattern": "stem.*", "share": 0.5}], 10).apply(0)
    assert [name for name, parameter in model.named_parameters() if not parameter.requires_grad] == [
        name for name, _ in model.named_parameters() if name.startswith("stem.")
    ]
