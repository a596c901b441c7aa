"""Every optimizer of conf/optim, as configured there, against its formula and on real data."""

import inspect
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import OmegaConf
from sklearn.datasets import load_digits
from torch import Tensor, nn

from deepexp.optim.groups import parameter_groups
from deepexp.paths import CONF_DIR

from . import update_rules as rules

NAMES = sorted(path.stem for path in (CONF_DIR / "optim").glob("*.yaml"))


def configured(name: str, **changes: Any) -> partial:
    """The optimizer's partial, made from its YAML as a run makes it."""
    config = OmegaConf.load(CONF_DIR / "optim" / f"{name}.yaml")
    assert set(changes) <= set(config), "the YAML lists every argument"
    return instantiate(OmegaConf.merge(config, changes), _convert_="all")


def quadratic(size: int) -> tuple[np.ndarray, np.ndarray]:
    """A and b of f(x) = ½xᵀAx − bᵀx, with curvatures from 0.1 to 10."""
    random = np.random.default_rng(0)
    basis, _ = np.linalg.qr(random.normal(size=(size, size)))
    return basis * np.geomspace(0.1, 10, size) @ basis.T, random.normal(size=size)


def trajectory(optimizer_of: partial, layer: nn.Module, steps: int) -> np.ndarray:
    """All parameters in one vector, before and after each of some steps on the quadratic."""
    hessian, linear = (torch.from_numpy(array) for array in quadratic(sum(p.numel() for p in layer.parameters())))
    optimizer = optimizer_of(parameter_groups(layer, [], optimizer_of.keywords["lr"]))

    def closure() -> Tensor:
        optimizer.zero_grad()
        x = nn.utils.parameters_to_vector(layer.parameters())
        loss = x @ hessian @ x / 2 - linear @ x
        loss.backward()
        return loss.detach()

    points = [nn.utils.parameters_to_vector(layer.parameters()).detach().numpy()]
    for _ in range(steps):
        optimizer.step(closure)
        points.append(nn.utils.parameters_to_vector(layer.parameters()).detach().numpy())
    return np.stack(points)


def small_layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 3).double()


VARIANTS = {
    "sgd": [{}, {"weight_decay": 0.1}],
    "momentum": [{}, {"weight_decay": 0.1, "dampening": 0.3}],
    "nesterov": [{}, {"weight_decay": 0.1}],
    "adam": [{}, {"weight_decay": 0.1, "amsgrad": True, "betas": [0.8, 0.5]}],
    "adamw": [{}, {"weight_decay": 0.1, "amsgrad": True, "betas": [0.8, 0.5]}],
    "adagrad": [{}, {"weight_decay": 0.1, "lr_decay": 0.2, "initial_accumulator_value": 0.5}],
    "adadelta": [{}, {"weight_decay": 0.1, "lr": 0.5}],
    "rmsprop": [{}, {"weight_decay": 0.1, "momentum": 0.9}, {"centered": True}],
    "adamax": [{}, {"weight_decay": 0.1, "betas": [0.8, 0.5]}],
    "nadam": [{}, {"weight_decay": 0.1}, {"weight_decay": 0.1, "decoupled_weight_decay": True}],
}
RULES = {"momentum": "sgd", "nesterov": "sgd"}


def test_all_twelve_optimizers_are_tested() -> None:
    assert {*NAMES} == {*VARIANTS, "lbfgs", "muon"}


OUR_DEFAULTS = {
    "sgd": {"lr": 0.1},
    "momentum": {"lr": 0.02, "momentum": 0.9},
    "nesterov": {"lr": 0.02, "momentum": 0.9, "nesterov": True},
    "rmsprop": {"lr": 0.001},
    "lbfgs": {"max_iter": 10, "history_size": 10, "line_search_fn": "strong_wolfe"},
    "muon": {"adjust_lr_fn": "original"},  # torch takes null for the same
}


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_torchs_with_few_exceptions(name: str) -> None:
    optimizer = configured(name)
    documented = {key: each.default for key, each in inspect.signature(optimizer.func).parameters.items()}
    ours = {
        key: value
        for key, value in optimizer.keywords.items()
        if value != (list(documented[key]) if isinstance(documented[key], tuple) else documented[key])
    }
    assert ours == OUR_DEFAULTS.get(name, {})


@pytest.mark.parametrize(("name", "changes"), [(name, each) for name, all_ in VARIANTS.items() for each in all_])
def test_first_steps_follow_the_formula(name: str, changes: dict[str, Any]) -> None:
    optimizer = configured(name, **changes)
    got = trajectory(optimizer, small_layer(), steps=8)
    hessian, linear = quadratic(got.shape[1])
    update = getattr(rules, RULES.get(name, name))(**optimizer.keywords)
    atol = 1e-9 if name == "nadam" else 1e-12  # torch keeps Nadam's product of momenta in float32
    x = got[0]
    for after in got[1:]:
        x = update(x, hessian @ x - linear)
        np.testing.assert_allclose(after, x, rtol=1e-9, atol=atol)


@pytest.mark.parametrize("history_size", [2, 10])
def test_first_steps_of_lbfgs_follow_the_formula(history_size: int) -> None:
    one_iteration = {"max_iter": 1, "line_search_fn": None, "keep_history": True}
    optimizer = configured("lbfgs", lr=0.5, history_size=history_size, **one_iteration)
    got = trajectory(optimizer, small_layer(), steps=8)
    hessian, linear = quadratic(got.shape[1])
    update = rules.lbfgs(0.5, history_size)
    x = got[0]
    for after in got[1:]:
        x = update(x, hessian @ x - linear)
        np.testing.assert_allclose(after, x, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("changes", [{}, {"nesterov": False, "weight_decay": 1.0}, {"ns_steps": 3, "lr": 0.1}])
@pytest.mark.parametrize("shape", [(4, 3), (3, 8)])
def test_first_steps_of_muon_follow_the_formula(
    shape: tuple[int, int], changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # torch iterates in bfloat16, whose numbers are 2⁻⁸ apart; here it stays in float64 for the formula's sake.
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    monkeypatch.setattr(torch, "bfloat16", torch.float64)  # so torch 2.15 asks for it
    optimizer = configured("muon", **changes)
    options = dict(optimizer.keywords)
    adamw = rules.adamw(
        lr=options["lr"] * options.pop("adamw_lr_mult"),
        betas=options.pop("adamw_betas"),
        eps=options.pop("adamw_eps"),
        weight_decay=options["weight_decay"],
        amsgrad=False,
    )
    assert options.pop("adjust_lr_fn") == "original"
    muon = rules.muon_matrix(**options)
    rows, columns = shape
    torch.manual_seed(0)
    got = trajectory(optimizer, nn.Linear(columns, rows).double(), steps=8)
    hessian, linear = quadratic(got.shape[1])
    weights = rows * columns
    for before, after in pairwise(got):
        gradient = hessian @ before - linear
        weight = muon(before[:weights].reshape(shape), gradient[:weights].reshape(shape))
        bias = adamw(before[weights:], gradient[weights:])
        np.testing.assert_allclose(after[:weights], weight.ravel(), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(after[weights:], bias, rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_each_optimizer_learns_digits_with_its_defaults(name: str) -> None:
    digits = load_digits()
    torch.manual_seed(0)
    order = torch.randperm(len(digits.target))
    pictures = torch.from_numpy(digits.images).float()[order, None] / 8 - 1  # (samples, 1, 8, 8)
    labels = torch.from_numpy(digits.target)[order]
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(144, 10)
    ).to(memory_format=torch.channels_last)
    optimizer_of = configured(name)
    optimizer = optimizer_of(parameter_groups(model, [], optimizer_of.keywords["lr"]))
    epochs = 1 if name == "lbfgs" else 5  # it looks at each batch about twelve times
    for batch in [batch for _ in range(epochs) for batch in torch.randperm(1400).split(50)]:

        def closure(batch: Tensor = batch) -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(pictures[batch]), labels[batch])
            loss.backward()
            return loss.detach()

        optimizer.step(closure)
    model.eval()
    with torch.no_grad():
        errors = (model(pictures[1400:]).argmax(1) != labels[1400:]).float().mean()
    assert errors < 0.1
