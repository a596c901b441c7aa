"""Weights that a model begins with fit it, or are refused by name."""

import logging
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from deepexp.errors import InputError
from deepexp.models.transfer import begin_with, fitting


def net(classes: int, width: int = 7) -> nn.Module:
    return nn.Sequential(nn.Linear(5, width), nn.BatchNorm1d(width), nn.Linear(width, classes))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The state dict of a net for 4 classes, which has seen a batch."""
    other = net(4)
    other(torch.randn(9, 5) * 3 + 1)
    torch.save(other.state_dict(), tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


def test_all_of_it_is_taken_where_the_classes_are_the_same(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = net(4)
    begin_with(model, file, 4)
    there = torch.load(file, weights_only=True)
    assert there.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, there[name]) for name, tensor in model.state_dict().items())
    assert not caplog.records


def test_a_last_layer_for_other_classes_is_left_as_it_was_drawn(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = net(6)
    drawn = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with caplog.at_level(logging.WARNING):
        begin_with(model, file, 6)
    there = torch.load(file, weights_only=True)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, drawn[name] if name.startswith("2.") else there[name])
    (record,) = caplog.records
    assert record.getMessage() == "init_from: 2.weight, 2.bias not taken, being for another number of classes than 6"


@pytest.mark.parametrize(
    ("model", "classes", "reason"),
    [
        (net(4, width=8), 4, "does not fit: 0.weight is (7, 5) there, and (8, 5) in this model"),
        (net(6, width=6), 6, "does not fit: 2.weight is (4, 7) there, and (6, 6) in this model"),
        (nn.Sequential(*net(4), nn.Linear(4, 4)), 4, "does not fit: it has no 3.weight, 3.bias, of this model"),
        (net(4)[:1], 7, "has also 1.weight, 1.bias, 1.running_mean and 4 more, which this model has not"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(file: Path, model: nn.Module, classes: int, reason: str) -> None:
    with pytest.raises(InputError, match=re.escape(reason)):
        fitting(model.to("meta"), file, classes)


def test_nothing_to_take_numbers_that_are_none_and_files_that_are_none_are_refused(tmp_path: Path) -> None:
    place = tmp_path / "weights.pt"
    torch.save(nn.Linear(5, 4).state_dict(), place)
    with pytest.raises(InputError, match="nothing is to be taken, as all of it is for other classes"):
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
