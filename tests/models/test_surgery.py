"""Layers of one network in another: what a glob takes, where it goes, and what is refused."""

import logging
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from deepexp.errors import InputError
from deepexp.models.surgery import Graft, fitting, operate


def donor() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 6)))


class Receiver(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.ModuleDict({"a": nn.Linear(4, 5), "b": nn.Linear(5, 2)})


@pytest.fixture
def place(tmp_path: Path) -> Path:
    network = donor()
    network[1].running_mean.fill_(3.0)
    network[1].num_batches_tracked.fill_(7)
    torch.save(network.state_dict(), tmp_path / "donor.pt")
    return tmp_path / "donor.pt"


def test_matched_tensors_go_where_the_stars_say_and_no_others_change(place: Path) -> None:
    receiver = Receiver()
    before = {name: tensor.clone() for name, tensor in receiver.state_dict().items()}
    operate(receiver, [Graft(place, "[01].*", "stem.*.*"), Graft(place, "2.0.*", "head.a.*")])
    there, after = torch.load(place), receiver.state_dict()
    origins = {name: name.removeprefix("stem.") for name in before if name.startswith("stem.")}
    origins |= {"head.a.weight": "2.0.weight", "head.a.bias": "2.0.bias"}
    assert len(origins) == 9
    for name, tensor in after.items():
        assert torch.equal(tensor, there[origins[name]] if name in origins else before[name]), name
    assert not torch.equal(after["head.a.weight"], before["head.a.weight"])


@pytest.mark.parametrize(
    ("layers", "to", "taken"),
    [
        ("0.weight", "stem.0.weight", ["stem.0.weight"]),
        ("0.*", "stem.0.*", ["stem.0.weight", "stem.0.bias"]),
        ("?.bias", "stem.*.bias", ["stem.0.bias", "stem.1.bias"]),
        ("[!2].bias", "stem.*.bias", ["stem.0.bias", "stem.1.bias"]),
        ("*.0.bias", "head.a.bias", None),  # a star is missing
    ],
)
def test_globs(place: Path, layers: str, to: str, taken: list[str] | None) -> None:
    if taken is None:
        with pytest.raises(InputError, match=re.escape("needs a * for each wildcard of layers (*)")):
            fitting(Receiver(), [Graft(place, layers, to)])
    else:
        assert list(fitting(Receiver().to("meta"), [Graft(place, layers, to)])) == taken


def test_without_to_the_names_stay(place: Path) -> None:
    other, there = donor(), torch.load(place)
    operate(other, [Graft(place, "2.[01].weight")])
    for name in ("0.weight", "0.bias", "2.0.weight", "2.0.bias", "2.1.weight", "2.1.bias"):
        assert torch.equal(other.state_dict()[name], there[name]) == (name in ("2.0.weight", "2.1.weight")), name


def test_names_in_wrappers_are_those_of_the_model_within(place: Path, tmp_path: Path) -> None:
    wrapped = {f"module._orig_mod.{name}": tensor for name, tensor in torch.load(place).items()}
    torch.save(wrapped, tmp_path / "wrapped.pt")
    assert list(fitting(Receiver(), [Graft(tmp_path / "wrapped.pt", "0.bias", "stem.0.bias")])) == ["stem.0.bias"]


def test_a_layer_that_is_taken_in_part_is_warned_of(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        operate(Receiver(), [Graft(place, "0.*", "stem.0.*")])
        assert not caplog.records
        operate(Receiver(), [Graft(place, "0.weight", "stem.0.weight")])
    (record,) = caplog.records
    assert record.getMessage().endswith("keep their initial values: stem.0.bias")


@pytest.mark.parametrize(
    ("grafts", "message"),
    [
        ([("3.*", None)], r"surgery\[0\]\.layers: '3\.\*' matches no tensor of .*donor\.pt.*; it holds 0\.weight, "),
        ([("0.*", "stern.0.*")], r"surgery\[0\]: this model has no stern\.0\.weight, .*did you mean 'stem\.0\.weight'"),
        (
            [("2.1.*", "head.b.*")],
            r"2\.1\.weight is \(6, 5\) in .*donor\.pt, and head\.b\.weight \(2, 5\) in this model",
        ),
        ([("0.*", "stem.0.*"), ("0.bias", "stem.0.bias")], r"surgery\[1\]\.to: stem\.0\.bias is taken from elsewhere"),
        ([("[z-a].*", "stem.*.*")], r"surgery\[0\]\.layers: '\[z-a\]\.\*' is no glob"),
        ([("nix", None), ("0.*", "nix.*")], r"^surgery\[0\]\.layers: .*\nsurgery\[1\]: this model has no nix"),
    ],
)
def test_what_does_not_fit_is_refused(place: Path, grafts: list[tuple[str, str | None]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fitting(Receiver(), [Graft(place, layers, to) for layers, to in grafts])


def test_two_tensors_for_one_place_are_refused(tmp_path: Path) -> None:
    torch.save({"ab.c": torch.zeros(1), "a.bc": torch.zeros(1)}, tmp_path / "odd.pt")
    with pytest.raises(InputError, match=r"surgery\[0\]\.to: '\*\*' is the name of several tensors then: abc"):
        fitting(Receiver(), [Graft(tmp_path / "odd.pt", "*.*", "**")])


def test_values_that_are_not_finite_and_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.full((4,), torch.nan), "s": torch.eye(4).to_sparse()}, tmp_path / "bad.pt")
    with pytest.raises(InputError, match=r"surgery\[0\]: w in .*bad\.pt holds values that are not finite"):
        fitting(Receiver(), [Graft(tmp_path / "bad.pt", "w", "stem.0.bias")])
    with pytest.raises(InputError, match=r"surgery\[0\]: s in .*bad\.pt is a sparse, "):
        fitting(Receiver(), [Graft(tmp_path / "bad.pt", "s", "stem.0.bias")])
    with pytest.raises(InputError, match=r"surgery\[0\]\.from: .*nowhere cannot be read"):
        fitting(Receiver(), [Graft(tmp_path / "nowhere", "w", None)])
