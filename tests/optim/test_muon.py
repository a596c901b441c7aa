import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deepexp.optim.groups import parameter_groups
from deepexp.optim.muon import Muon

FORMATS = [torch.contiguous_format, torch.channels_last]
SCHEDULE = [0.01, 0.02, 0.02, 0.005, 0.001]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(4 * 36, 5)
    )


def backward(model: nn.Module, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    model.zero_grad()
    pictures = torch.randn(8, 3, 8, 8, generator=random)
    nn.functional.cross_entropy(model(pictures), torch.arange(8) % 5).backward()


def advance(model: nn.Module, optimizer: torch.optim.Optimizer, seeds: range) -> None:
    for seed in seeds:
        backward(model, seed)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * SCHEDULE[seed % len(SCHEDULE)] / SCHEDULE[0]
        optimizer.step()


def muon(model: nn.Module, rules: list[dict[str, Any]] | None = None, **options: Any) -> Muon:
    return Muon(parameter_groups(model, rules or [], SCHEDULE[0]), **options)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_muon_is_torchs_on_flattened_weights_and_adamw_on_the_rest() -> None:
    model = network()
    rules = [{"pattern": "2.*", "lr_mult": 0.5, "weight_decay": 0.3}]
    optimizer = muon(model, rules, weight_decay=0.1, adamw_lr_mult=0.2)
    reference = copy.deepcopy(model)
    parts: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    matrices: dict[str, Tensor] = {}
    for name, p in reference.named_parameters():
        matrices[name] = p.detach().clone().flatten(1) if p.ndim > 1 else p.detach().clone()
        options = {"weight_decay": 0.3 if name.startswith("2.") else 0.1}
        parts[p.ndim > 1].append({"params": [matrices[name]], "mult": 0.5 if name.startswith("2.") else 1.0, **options})
    torchs = [torch.optim.Muon(parts[True], momentum=0.95), torch.optim.AdamW(parts[False])]

    for step, lr in enumerate(SCHEDULE):
        for (name, p), value in zip(reference.named_parameters(), matrices.values(), strict=True):
            p.data = value.view(p.shape)
            assert torch.equal(p, model.get_parameter(name)), f"{name} at step {step}"
        backward(reference, seed=step)
        for name, p in reference.named_parameters():
            matrices[name].grad = p.grad.view(matrices[name].shape)
        for each, scale in zip(torchs, (1.0, 0.2), strict=True):
            for group in each.param_groups:
                group["lr"] = lr * group["mult"] * scale
            each.step()
        advance(model, optimizer, range(step, step + 1))


def test_channels_last_weights_move_in_place_and_by_the_same_update() -> None:
    model = network()
    twin = copy.deepcopy(model).to(memory_format=torch.channels_last)
    starts = [p.detach().clone() for p in model.parameters()]
    addresses = [p.data_ptr() for p in twin.parameters()]
    for each in (model, twin):
        advance(each, muon(each), range(1))
    assert [p.data_ptr() for p in twin.parameters()] == addresses
    assert twin[0].weight.is_contiguous(memory_format=torch.channels_last)
    for start, p, q in zip(starts, model.parameters(), twin.parameters(), strict=True):
        # The same up to rounding: torch orthogonalises in bfloat16, whose numbers are 2⁻⁸ apart.
        torch.testing.assert_close(q - start, p - start, rtol=0, atol=0.02 * (p - start).abs().max().item())


@pytest.mark.parametrize("memory_format", FORMATS)
def test_saved_state_continues_exactly(memory_format: torch.memory_format) -> None:
    model = network().to(memory_format=memory_format)
    rules = [{"pattern": "*.bias", "weight_decay": 0.0}, {"pattern": "0.*", "lr_mult": 0.1}]
    optimizer = muon(model, rules)
    advance(model, optimizer, range(3))
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)

    other = network().to(memory_format=memory_format)
    resumed = muon(other, rules)
    other.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["optimizer"])
    for each, its in ((model, optimizer), (other, resumed)):
        advance(each, its, range(3, 6))
    assert same(model, other)
    assert str(optimizer.state_dict()) == str(resumed.state_dict())


def test_state_of_one_memory_format_loads_for_weights_of_another() -> None:
    model = network()
    optimizer = muon(model)
    advance(model, optimizer, range(3))
    twin = copy.deepcopy(model).to(memory_format=torch.channels_last)
    resumed = muon(twin)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    before = [p.detach().clone() for p in model.parameters()]
    for each, its in ((model, optimizer), (twin, resumed)):
        advance(each, its, range(3, 4))
    for start, p, q in zip(before, model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(q - start, p - start, rtol=0, atol=0.02 * (p - start).abs().max().item())


def test_a_deep_copy_is_independent() -> None:
    model = network().to(memory_format=torch.channels_last)
    optimizer = muon(model)
    advance(model, optimizer, range(2))
    twin, its = copy.deepcopy((model, optimizer))
    advance(twin, its, range(2, 4))
    assert not same(model, twin)
    advance(model, optimizer, range(2, 4))
    assert same(model, twin)


def test_parameters_without_gradient_are_left_alone() -> None:
    model = network()
    optimizer = muon(model)
    advance(model, optimizer, range(2))
    frozen = copy.deepcopy(model)
    before = copy.deepcopy(optimizer.state_dict()["state"])
    model.zero_grad()
    optimizer.step()
    assert same(model, frozen)
    assert str(before) == str(optimizer.state_dict()["state"])


def test_parameters_that_never_moved_have_no_state() -> None:
    model = network()
    model[0].requires_grad_(False)
    optimizer = muon(model)
    advance(model, optimizer, range(1))
    assert {id(p) for p in optimizer.state} == {id(p) for p in model.parameters() if p.requires_grad}


def test_a_closure_is_evaluated_and_its_loss_returned() -> None:
    weight = nn.Parameter(torch.eye(3))
    optimizer = Muon([weight], lr=0.1, weight_decay=0.0)

    def closure() -> Tensor:
        loss = weight.square().sum()
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    assert loss is not None and loss.item() == 3.0
    assert weight.square().sum() < 3.0


@pytest.mark.parametrize(
    "options",
    [
        {"lr": -1.0},
        {"momentum": -0.1},
        {"weight_decay": -0.1},
        {"adjust_lr_fn": "none"},
        {"adamw_lr_mult": -1.0},
        {"adamw_betas": [0.9, 1.0]},
        {"adamw_eps": -1e-8},
    ],
    ids=str,
)
def test_impossible_arguments_are_errors(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Muon(network().parameters(), **options)
