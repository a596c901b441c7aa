import contextlib
import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from deepexp.optim.groups import (
    OptimizerFactory,
    check_arguments,
    check_group_options,
    group_options,
    parameter_groups,
    refusals,
)
from deepexp.optim.lbfgs import LBFGS
from deepexp.optim.muon import Muon

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.0)


def network() -> nn.Module:
    model = nn.Module()
    model.features = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3))
    model.head = nn.Linear(2, 2)
    return model


def names_of(groups: list[dict[str, Any]]) -> list[list[str]]:
    return [[name for name, _ in group["params"]] for group in groups]


def test_without_rules_there_is_one_group_of_everything() -> None:
    model = network()
    (group,) = parameter_groups(model, [], 0.1)
    assert group["params"] == list(model.named_parameters())
    assert group["lr"] == group["initial_lr"] == 0.1


def test_the_first_matching_rule_wins_and_the_rest_is_the_first_group() -> None:
    rules = [
        {"pattern": "*.bias", "weight_decay": 0.0},
        {"pattern": "features.*", "lr_mult": 0.1, "momentum": 0.5},
    ]
    rest, biases, features = parameter_groups(network(), rules, 0.2)
    assert names_of([rest, biases, features]) == [
        ["head.weight"],
        ["features.0.bias", "features.1.bias", "features.2.bias", "head.bias"],
        ["features.0.weight", "features.1.weight", "features.2.weight"],
    ]
    assert (rest["lr"], biases["lr"], features["lr"]) == (0.2, 0.2, pytest.approx(0.02))
    assert biases["weight_decay"] == 0.0 and "weight_decay" not in rest
    assert features["momentum"] == 0.5 and "lr_mult" not in features and "pattern" not in features


def test_rules_for_everything_leave_no_empty_group() -> None:
    groups = parameter_groups(network(), [{"pattern": "features.*"}, {"pattern": "head.*"}], 0.1)
    assert [len(names) for names in names_of(groups)] == [6, 2]


def test_a_learning_rate_multiplier_of_zero_is_kept() -> None:
    (rest, still) = parameter_groups(network(), [{"pattern": "head.*", "lr_mult": 0}], 0.1)
    assert (rest["lr"], still["lr"], still["initial_lr"]) == (0.1, 0, 0)


def test_frozen_parameters_are_in_their_groups() -> None:
    model = network().requires_grad_(False)
    assert len(parameter_groups(model, [], 0.1)[0]["params"]) == 8


def test_each_group_moves_by_its_own_options() -> None:
    model = network()
    rules = [{"pattern": "*.bias", "weight_decay": 0.0}, {"pattern": "features.*", "lr_mult": 0.5, "momentum": 0.0}]
    optimizer = SGD(parameter_groups(model, rules, 0.1), weight_decay=0.5)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in range(2):
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()

    def expected(x: torch.Tensor, lr: float, momentum: float, weight_decay: float) -> torch.Tensor:
        first = 1 + weight_decay * x
        x = x - lr * first
        return x - lr * (momentum * first + 1 + weight_decay * x)

    after = dict(model.named_parameters())
    for name, options in {
        "head.weight": (0.1, 0.9, 0.5),
        "head.bias": (0.1, 0.9, 0.0),
        "features.0.bias": (0.1, 0.9, 0.0),
        "features.0.weight": (0.05, 0.0, 0.5),
    }.items():
        torch.testing.assert_close(after[name].detach(), expected(before[name], *options))


def test_saved_groups_have_the_names_of_their_parameters() -> None:
    optimizer = SGD(parameter_groups(network(), [{"pattern": "head.*"}], 0.1))
    assert optimizer.state_dict()["param_groups"][1]["param_names"] == ["head.weight", "head.bias"]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (
            ["featurs.*"],
            r"optim.groups\[0\].pattern: 'featurs.\*' matches no parameter \(did you mean 'features.\*'\?\)",
        ),
        (["HEAD.*"], r"optim.groups\[0\].pattern: 'HEAD.\*' matches no parameter"),
        (["head.*", "head.bias"], r"optim.groups\[1\].pattern: 'head.bias' matches only parameters that rules before"),
        (["a.*", "head.*", "b.*"], r"(?s)groups\[0\].pattern: 'a.\*'.*\n.*groups\[2\].pattern: 'b.\*'"),
    ],
)
def test_a_pattern_that_matches_nothing_is_an_error(patterns: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parameter_groups(network(), [{"pattern": pattern} for pattern in patterns], 0.1)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            {"pattern": "*", "wieght_decay": 0.1},
            r"optim.groups\[1\].wieght_decay: .* \(did you mean 'weight_decay'\?\)",
        ),
        ({"pattern": "*", "foo": 1}, r"foo: .*; allowed are pattern, lr_mult, momentum, weight_decay$"),
        ({"pattern": "*", "lr": 0.1}, r"optim.groups\[1\].lr: there is no such option.*allowed are pattern, lr_mult"),
        ({"lr_mult": 0.1}, r"optim.groups\[1\]: needs a pattern"),
        ({"pattern": "*", "lr_mult": -1}, r"optim.groups\[1\].lr_mult: -1 is not allowed; a number ≥ 0"),
        ({"pattern": "*", "lr_mult": "fast"}, r"optim.groups\[1\].lr_mult: 'fast'"),
        (
            {"pattern": "*", "weight_decay": -1},
            r"optim.groups\[1\]: weight_decay=-1 is not allowed \(Invalid weight_decay",
        ),
        ({"pattern": "*", "momentum": "much"}, r"optim.groups\[1\]: momentum='much' is not allowed"),
    ],
)
def test_a_rule_with_wrong_options_is_an_error(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_group_options(SGD, [{"pattern": "*.bias", "weight_decay": 0.0}, rule])


def test_all_wrong_options_are_reported_together() -> None:
    rules = [{"pattern": "*", "a": 1, "b": 2}, {"pattern": "*", "c": 3}]
    with pytest.raises(ValueError) as caught:
        check_group_options(SGD, rules)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "optim.groups[0].a",
        "optim.groups[0].b",
        "optim.groups[1].c",
    ]


def test_right_rules_pass() -> None:
    check_group_options(SGD, [])
    check_group_options(SGD, [{"pattern": "*", "lr_mult": 0, "momentum": 0.5, "weight_decay": 1e-4}])
    check_group_options(partial(Muon, adamw_lr_mult=0.1), [{"pattern": "*", "adamw_lr_mult": 0.5}])


@pytest.mark.parametrize(
    ("optimizer", "keys"),
    [
        (partial(torch.optim.Adam, lr=0.1, betas=[0.9, 0.99], eps=1e-6), []),
        (partial(torch.optim.Adam, lr=0.1, betas=[0.9, 2], eps=-1, weight_decay=0.1), ["betas", "eps"]),
        (partial(torch.optim.Adam, lr=-1, betas=[1], eps=-1, foreach=True), ["lr", "betas", "eps"]),
        (partial(torch.optim.SGD, lr=math.inf, momentum=0.9, dampening=0.5, nesterov=True), ["lr", "dampening"]),
        (partial(torch.optim.SGD, lr=0.1, momentum=0, nesterov=True, weight_decay=-1), ["nesterov", "weight_decay"]),
    ],
)
def test_the_fewest_arguments_are_blamed(optimizer: OptimizerFactory, keys: list[str]) -> None:
    with pytest.raises(ValueError) if keys else contextlib.nullcontext() as caught:
        check_arguments(optimizer)
    lines = str(caught.value).splitlines() if caught else []
    assert [line.partition(": ")[0] for line in lines] == [f"optim.{key}" for key in keys]


@pytest.mark.parametrize("betas", [0.9, [0.9], [0.9, 0.99, 0.999]])
def test_how_many_values_are_needed_is_told(betas: object) -> None:
    with pytest.raises(
        ValueError, match=r"^optim.betas: .* is not allowed .*; AdamW's default is \[0.9, 0.999\]$"
    ) as caught:
        check_arguments(partial(torch.optim.AdamW, lr=0.1, betas=betas))
    assert "(2 values are needed)" in str(caught.value)


def test_an_optimizer_that_refuses_whatever_it_is_given_is_quoted() -> None:
    def broken(params: Any, lr: float, size: int = 1) -> torch.optim.Optimizer:
        raise RuntimeError("no such thing")

    with pytest.raises(ValueError, match=r"^RuntimeError: no such thing$"):
        check_arguments(partial(broken, lr=0.1, size=2))


@pytest.mark.parametrize(("text", "told"), [("", "ValueError"), ("not\nthis", "not this"), (" \n", "ValueError")])
def test_what_an_optimizer_says_is_on_one_line(text: str, told: str) -> None:
    def picky(params: Any, lr: float, size: int = 1, kind: str = "a") -> torch.optim.Optimizer:
        if size > 1 or kind != "a":
            raise ValueError(text)
        return torch.optim.SGD(params, lr)

    def broken(params: Any, lr: float) -> torch.optim.Optimizer:
        raise ValueError(text)

    with pytest.raises(ValueError, match=rf"^optim.size: 2 is not allowed \({told}\); picky's default is 1$"):
        check_arguments(partial(picky, lr=0.1, size=2))
    with pytest.raises(ValueError, match=rf"^{told}$"):
        check_arguments(partial(broken, lr=0.1))


def test_options_of_a_class_are_its_defaults() -> None:
    assert {"momentum", "weight_decay", "nesterov"} <= set(group_options(torch.optim.SGD))
    assert "lr" not in group_options(torch.optim.SGD)


def test_lbfgs_refuses_groups_and_fp16() -> None:
    rules = [{"pattern": "*", "lr_mult": 0.1}]
    lbfgs = partial(LBFGS, lr=1.0)
    assert refusals(lbfgs, [], "fp32") == []
    groups, precision = refusals(lbfgs, rules, "fp16")
    assert groups.startswith("optim.groups: LBFGS takes none")
    assert precision.startswith("precision: LBFGS does not work in fp16")
    assert refusals(SGD, rules, "fp16") == refusals(torch.optim.SGD, rules, "fp16") == []
