"""Weights for `init_from`: those that fit a model are taken, others refused by name."""

import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from deepexp.errors import InputError
from deepexp.models.transfer import begin_with, fitting


def net(classes: int, width: int = 7) -> nn.Module:
    return nn.Sequential(nn.Linear(5, width), nn.BatchNorm1d(width), nn.Linear(width, classes))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The state dict of a net for 4 classes, whose running statistics have seen a batch."""
    other = net(4)
    other(torch.randn(9, 5) * 3 + 1)
    torch.save(other.state_dict(), tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


def test_all_weights_are_taken_for_the_same_number_of_classes(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = net(4)
    begin_with(model, file, 4)
    there = torch.load(file, weights_only=True)
    assert there.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, there[name]) for name, tensor in model.state_dict().items())
    assert not caplog.records


@pytest.mark.parametrize("wrapper", [nn.DataParallel, torch.compile])
def test_weights_saved_inside_a_wrapper_fit(tmp_path: Path, wrapper: Callable[..., nn.Module]) -> None:
    inner, model = net(4), net(4)
    torch.save({"model": wrapper(inner).state_dict(), "epoch": 3}, tmp_path / "weights.pt")
    begin_with(model, tmp_path / "weights.pt", 4)
    assert all(torch.equal(tensor, inner.state_dict()[name]) for name, tensor in model.state_dict().items())
    begin_with(wrapper(net(4)), tmp_path / "weights.pt", 4)  # where the prefix of the wrapper is right


@pytest.mark.parametrize("name", ["state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "model.", "net.inner."])
def test_weights_in_a_checkpoint_and_under_a_prefix_fit(
    tmp_path: Path, name: str, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    inner, model = net(4), net(4)
    weights = {prefix + key: value for key, value in inner.state_dict().items()}
    torch.save({name: weights, "epoch": 3, "optimizer": {"state": {}}}, tmp_path / "weights.pt")
    begin_with(model, tmp_path / "weights.pt", 4)
    assert all(torch.equal(tensor, inner.state_dict()[key]) for key, tensor in model.state_dict().items())
    assert not caplog.records


def test_what_is_missing_inside_a_wrapper_is_named_alone(tmp_path: Path) -> None:
    weights = nn.DataParallel(net(4)).state_dict()
    del weights["module.2.bias"]
    torch.save(weights, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"does not fit: it has no 2\.bias, of this model, and holds 0\.weight, "):
        fitting(net(4), tmp_path / "weights.pt", 4)


def test_weights_without_the_prefix_that_the_model_has_fit(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = nn.ModuleDict({"network": net(6)})
    begin_with(model, file, 6)
    assert torch.equal(model.state_dict()["network.0.weight"], torch.load(file)["0.weight"])
    assert caplog.messages == ["init_from: not taken, as they are not for 6 classes: network.2.weight, network.2.bias"]


def test_what_lies_beside_the_model_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = nn.ModuleDict({"model": net(4), "loss": nn.Linear(2, 2)})
    torch.save({**whole.state_dict(), "steps": 3, 7: torch.zeros(1)}, tmp_path / "weights.pt")
    begin_with(net(4), tmp_path / "weights.pt", 4)
    assert caplog.messages == ["init_from: not taken, as they are no part of this model: loss.weight, loss.bias, 7"]


def test_weights_that_fit_under_two_prefixes_are_refused(tmp_path: Path) -> None:
    torch.save(nn.ModuleDict({"net": net(4), "average": net(4)}).state_dict(), tmp_path / "weights.pt")
    told = (
        "weights for this model under average. and net.; choose one by its prefix with surgery=[{from: …, layers: 'av"
    )
    with pytest.raises(InputError, match=re.escape(told)):
        fitting(net(4), tmp_path / "weights.pt", 4)


@pytest.mark.parametrize("model", [nn.Sequential(nn.Linear(5, 4)), nn.Linear(4, 4)])
def test_names_that_only_end_alike_do_not_fit(tmp_path: Path, model: nn.Module) -> None:
    torch.save({"xweight": torch.zeros(4, 4), "xbias": torch.zeros(4), "0x.weight": torch.zeros(4, 5)}, tmp_path / "w")
    with pytest.raises(InputError, match="does not fit: it has no "):
        fitting(model, tmp_path / "w", 4)


def test_safetensors_are_read(tmp_path: Path) -> None:
    inner, model = net(4), net(4)
    safetensors.torch.save_file(inner.state_dict(), tmp_path / "model.safetensors")
    begin_with(model, tmp_path / "model.safetensors", 4)
    assert all(torch.equal(tensor, inner.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_safetensors_that_cannot_be_read_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "model.safetensors"
    for content in (b"", b"rubbish" * 9, b"\x08" + bytes(7) + b"{}      "):
        place.write_bytes(content)
        with pytest.raises(
            InputError, match=r"^init_from: .*model\.safetensors (is damaged, or no file of|does not fit)"
        ):
            fitting(net(4), place, 4)
    with pytest.raises(InputError, match=r"nowhere\.safetensors cannot be read \(No such file"):
        fitting(net(4), tmp_path / "nowhere.safetensors", 4)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(InputError, match=r"needs safetensors, which is not installed; pip install safetensors$"):
        fitting(net(4), place, 4)


def test_a_last_layer_for_other_classes_keeps_its_initial_weights(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = net(6)
    drawn = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with caplog.at_level(logging.WARNING):
        begin_with(model, file, 6)
    there = torch.load(file, weights_only=True)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, drawn[name] if name.startswith("2.") else there[name])
    (record,) = caplog.records
    assert record.getMessage() == "init_from: not taken, as they are not for 6 classes: 2.weight, 2.bias"


@pytest.mark.parametrize(
    ("model", "classes", "reason"),
    [
        (net(4, width=8), 4, "does not fit: 0.weight is (7, 5) there, and (8, 5) in this model"),
        (net(6, width=6), 6, "does not fit: 2.weight is (4, 7) there, and (6, 6) in this model"),
        (
            nn.Sequential(*net(4), nn.Linear(4, 4)),
            4,
            "does not fit: it has no 3.weight, 3.bias, of this model, and holds 0.weight, 0.bias, 1.weight, …",
        ),
        (net(4)[:1], 7, "has also 1.weight, 1.bias, 1.running_mean and 4 more, which this model has not"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(file: Path, model: nn.Module, classes: int, reason: str) -> None:
    with pytest.raises(InputError, match=re.escape(reason)):
        fitting(model.to("meta"), file, classes)


class Own(nn.Module):
    """A module that uses all that torch offers: extra state, a version of its own, and a mask of -inf."""

    _version = 2

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(5))
        self.register_buffer("mask", torch.full((3, 3), -torch.inf).triu(1))
        self.steps = 0

    def get_extra_state(self) -> dict[str, int]:
        return {"steps": self.steps}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.steps = state["steps"]

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, metadata: dict[str, Any], *rest: Any) -> None:
        if metadata.get("version", 1) < 2:  # weights were kept halved
            state[f"{prefix}weight"] = state[f"{prefix}weight"] * 2
        super()._load_from_state_dict(state, prefix, metadata, *rest)


@pytest.mark.parametrize("is_averaged", [True, False])
def test_extra_state_and_buffers_of_a_module_are_taken(tmp_path: Path, is_averaged: bool) -> None:
    other, place = Own(), tmp_path / "last.pt"
    other.steps = 7
    averages = {"averages": {"weight": torch.full((5,), 3.0)}} if is_averaged else None
    torch.save({"model": other.state_dict(), "ema": averages}, place)
    model = Own()
    fitting(Own().to("meta"), place, 4)
    begin_with(model, place, 4)
    assert model.steps == 7
    wrapped = nn.ModuleDict({"inner": Own()})
    begin_with(wrapped, place, 4)  # which would double weights of an earlier version
    assert torch.equal(wrapped.state_dict()["inner.weight"], model.weight)
    assert model.weight.tolist() == [3.0 if is_averaged else 1.0] * 5
    assert torch.equal(model.get_buffer("mask"), other.get_buffer("mask"))


def test_a_finite_buffer_takes_only_finite_values(tmp_path: Path) -> None:
    other, place = net(4), tmp_path / "weights.pt"
    torch.save({**other.state_dict(), "1.running_var": torch.full((7,), torch.inf)}, place)
    with pytest.raises(InputError, match=r"1\.running_var in .* holds values that are not finite"):
        begin_with(net(4), place, 4)


def test_entries_that_are_not_dense_tensors_are_refused(tmp_path: Path) -> None:
    place = tmp_path / "weights.pt"
    for odd, reason in (
        (torch.zeros(4, 5).to_sparse(), "is a sparse, quantized or meta tensor; a dense one is needed"),
        (torch.zeros(4, 5, device="meta"), "is a sparse, quantized or meta tensor; a dense one is needed"),
        (None, "is a NoneType; a tensor is needed"),
    ):
        torch.save({"weight": odd, "bias": torch.zeros(4), "epoch": 3}, place)
        with pytest.raises(InputError, match=f"init_from: weight in .* {reason}"):
            fitting(nn.Linear(5, 4), place, 4)
    torch.save({**nn.Linear(5, 4).state_dict(), 0: torch.zeros(4)}, place)
    with pytest.raises(InputError, match="it has also 0, which this model has not"):
        fitting(nn.Linear(5, 4), place, 4)


def test_weights_without_use_not_finite_or_unreadable_are_refused(tmp_path: Path) -> None:
    place = tmp_path / "weights.pt"
    torch.save(nn.Linear(5, 4).state_dict(), place)
    with pytest.raises(InputError, match="all of its tensors are for another number of classes"):
        fitting(nn.Linear(5, 3), place, 3)
    torch.save({"weight": torch.full((4, 5), torch.nan), "bias": torch.zeros(4)}, place)
    with pytest.raises(InputError, match=r"init_from: weight in .* holds values that are not finite"):
        fitting(nn.Linear(5, 4), place, 4)
    place.write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"init_from: .* is damaged, or no file of weights"):
        fitting(nn.Linear(5, 4), place, 4)
    with pytest.raises(InputError, match=r"init_from: .* is a folder without checkpoints"):
        fitting(nn.Linear(5, 4), tmp_path, 4)
    with pytest.raises(InputError, match=r"init_from: .* cannot be read"):
        fitting(nn.Linear(5, 4), tmp_path / "nowhere", 4)
    with pytest.raises(
        InputError, match=r"a,b cannot be read \(No such .*; to sweep over several, write choice\('A','B'\)"
    ):
        fitting(nn.Linear(5, 4), tmp_path / "a,b", 4)
