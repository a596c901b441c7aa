"""A user's data source that breaks the interface is refused in one line, before a run begins."""

import importlib
import json

import pytest

from deepexp import cli
from deepexp.data.source import WritingSource
from deepexp.user_code import own_data

MODULE = """
import numpy
import torch
from deepexp.data.source import DataInfo, Split

class Good:
    def info(self):
        return DataInfo((1, 28, 28), ("a", "b"), 40, 10)

    def load(self):
        return self.split(40), self.split(10)

    def split(self, samples):
        return Split.of(torch.zeros(samples, 1, 28, 28, dtype=torch.uint8), torch.arange(samples) % 2)

class Lists(Good):
    def info(self):
        return DataInfo([1, 28, 28], ["a", "b"], 40, 10)

class Counted(Good):
    def info(self):
        return DataInfo(tuple(numpy.array([1, 28, 28])), ("a", "b"), numpy.int64(40), numpy.int64(10))

class Column(Good):
    def split(self, samples):
        table = torch.stack([torch.arange(samples) % 2, torch.arange(samples)], dim=1)
        return Split.of(super().split(samples).images, table[:, 0])

class RowsOutside(Good):
    def split(self, samples):
        split = super().split(samples)
        return Split(split.images, split.labels, torch.arange(samples) + 1)

class RowsBefore(Good):
    def split(self, samples):
        split = super().split(samples)
        return Split(split.images, split.labels, torch.arange(samples) - 1)

class RowsFloat(Good):
    def split(self, samples):
        split = super().split(samples)
        return Split(split.images, split.labels, torch.arange(samples).float())

class RowsArray(Good):
    def split(self, samples):
        split = super().split(samples)
        return Split(split.images, split.labels, numpy.arange(samples))

class Elsewhere(Good):
    def split(self, samples):
        split = super().split(samples)
        return Split(split.images.to("meta"), split.labels)

class NoInfo(Good):
    def info(self):
        pass

class NoNames(Good):
    def info(self):
        return DataInfo((1, 28, 28), 2, 40, 10)

class NoChannels(Good):
    def info(self):
        return DataInfo((28, 28), ("a", "b"), 40, 10)

class Empty(Good):
    def info(self):
        return DataInfo((1, 28, 28), ("a", "b"), 0, 10)

class Breaks(Good):
    def info(self):
        raise OSError("no such server")

class OneSplit(Good):
    def load(self):
        return self.split(40)

class ThreeSplits(Good):
    def load(self):
        return self.split(40), self.split(10), self.split(10)

class Tensors(Good):
    def load(self):
        return torch.zeros(40, 1, 28, 28), torch.zeros(10, 1, 28, 28)

class Flat(Good):
    def split(self, samples):
        return Split.of(torch.zeros(samples, 28, 28, dtype=torch.uint8), torch.zeros(samples, dtype=torch.int64))

class Array(Good):
    def split(self, samples):
        return Split.of(numpy.zeros((samples, 1, 28, 28), numpy.uint8), torch.zeros(samples, dtype=torch.int64))

class TakesSubset(Good):
    def __init__(self, *, subset=None):
        pass

class Dataset(torch.utils.data.Dataset):
    def __getitem__(self, index):
        return torch.zeros(1, 28, 28), 0

class Endless(Good):
    def info(self):
        return DataInfo((1, 28, 28), ("a", "b"), 10**15, 10)

class Wraps(Good):
    def __init__(self, *, base=None):
        self.base = base
"""
MODULE += """
class FourSplits(Good):
    def load(self):
        return [self.split(40)] * 4

class OwnValidation(Good):
    def info(self):
        return DataInfo((1, 28, 28), ("a", "b"), 40, 10, val_samples=20)

    def load(self):
        return self.split(40), self.split(10), self.split(20)

class HalfAPicture(OwnValidation):
    def info(self):
        return DataInfo((1, 28, 28), ("a", "b"), 40, 10, val_samples=0.5)
"""
NAMES = [line.split()[1].partition("(")[0].rstrip(":") for line in MODULE.splitlines() if line.startswith("class")]


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "their_data.py").write_text(MODULE)
    for name in NAMES:
        (tmp_path / "conf" / "data" / f"{name}.yaml").write_text(f"_target_: their_data.{name}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(name, *words):
    return cli.main(["train", f"data={name}", "batch_size=10", "epochs=1", "threads=1", "device=cpu", *words])


@pytest.mark.parametrize("name", ["Good", "Lists", "Counted", "Column"])
def test_a_correct_source_is_trained_on(here, name):
    assert train(name) == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NoInfo", "data: their_data.NoInfo.info gives None, and a DataInfo is needed"),
        ("NoNames", "data: their_data.NoNames.info: classes: 2 is not allowed; the names of the classes"),
        ("NoChannels", "data: their_data.NoChannels.info: shape: (28, 28) is not allowed; (channels, height, width)"),
        ("Empty", "data: their_data.Empty.info: train_samples: 0 is not allowed; a whole number of at least 1"),
        ("Breaks", "data: their_data.Breaks.info failed: their_data.py:72: OSError: no such server"),
        ("OneSplit", "data: their_data.OneSplit.load gives a Split, and two Splits are needed: training, test"),
        ("ThreeSplits", "data: their_data.ThreeSplits.load gives validation data, and its info has no val_samples; "),
        ("FourSplits", "data: their_data.FourSplits.load gives 4 things, and two Splits are needed: training, test; "),
        ("HalfAPicture", "data: their_data.HalfAPicture.info: val_samples: 0.5 is not allowed; a whole number, 0 for"),
        ("RowsOutside", "training data: rows from 1 to 40; of 40 pictures 0 to 39 are there"),
        ("RowsBefore", "training data: rows from -1 to 38; of 40 pictures 0 to 39 are there"),
        ("RowsArray", "training data: rows are a ndarray; needed is a tensor (samples,) int64"),
        ("RowsFloat", "training data: rows torch.float32 (40,); needed is int64 (samples,)"),
        ("Elsewhere", "training data: pictures on meta, labels on cpu; needed are both on the CPU"),
        ("Tensors", "training data: the source gives a Tensor"),
        ("Flat", "their_data.Flat.load failed: their_data.py:88: ValueError: pictures are (40, 28, 28); needed is"),
        ("Array", "their_data.py:92: ValueError: pictures are a ndarray; needed is a tensor (samples, channels, "),
        ("Dataset", "data._target_: their_data.Dataset gives a Dataset without info and load, which a run calls"),
        (
            "Endless",
            "data: an epoch of 1,000,000,000,000,000 training samples needs 28.0 PB of memory for their ",
        ),
        ("TakesSubset", "data.subset: is a key of deepexp's own, which their_data.TakesSubset would never be given; "),
    ],
)
def test_a_wrong_source_is_refused_in_one_line(here, capsys, name, expected):
    assert train(name) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line and not (here / "outputs").exists()


@pytest.mark.parametrize("flags", [[], ["-m", "seed=0,1"]])
def test_a_source_may_give_validation_data(here, capsys, flags):
    """Those of a sweep lie in shared memory."""
    assert train("OwnValidation", "early_stop=3", "model=mnist_net", *flags) == 0
    assert train("OwnValidation", "val_fraction=0.1", *flags) == 2
    assert "the data have 20 validation pictures of their own; leave it at 0.0" in capsys.readouterr().err
    summaries = [json.loads(path.read_text()) for path in (here / "outputs").glob("**/summary.json")]
    assert len(summaries) == max(1, 2 * len(flags[1:]))
    assert all(summary["val_error_rate"] is not None and summary["best_epoch"] == 1 for summary in summaries)
    assert "20 validation" in next((here / "outputs").glob("**/run.log")).read_text()


@pytest.mark.parametrize(("base", "code"), [("their_data.Good", 0), ("their_data.Nothing", 2)])
def test_a_source_may_wrap_another_and_a_wrong_one_is_named_with_the_reason(here, capsys, base, code):
    (here / "conf" / "data" / "Wraps.yaml").write_text(f"_target_: their_data.Wraps\nbase:\n  _target_: {base}\n")
    assert train("Wraps") == code
    reason = "Error loading 'their_data.Nothing': ModuleNotFoundError"
    assert (reason in capsys.readouterr().err) == (code == 2)


def test_memory_is_checked_for_the_samples_used_not_for_all_announced(here, capsys):
    """Repeated samples count too."""
    assert train("Endless", "data.subset=40") == 2
    assert "announced were 1000000000000000" in capsys.readouterr().err, "what is wrong with it is only this"
    assert train("Good", "data.replicate=100000000000000") == 2
    assert capsys.readouterr().err.endswith(" are free; give a smaller data.replicate\n")


def test_keep_out_of_is_passed_on_to_a_users_source(here, monkeypatch):
    """A resumed run may have a stranger's config, and must not write into folders that only it names."""
    monkeypatch.syspath_prepend(str(here))
    module = importlib.import_module("their_data")
    told = []
    monkeypatch.setattr(module.Good, "keep_out_of", lambda _, places: told.append(set(places)), raising=False)
    source = own_data.guarded(module.Good())
    assert isinstance(source, WritingSource)
    source.keep_out_of({"root"})
    assert told == [{"root"}] and len(source.load()[0]) == 40


def test_a_sweep_refuses_a_wrong_source_too(here, capsys):
    assert train("OneSplit", "-m", "seed=0,1") == 2
    assert "their_data.OneSplit.load gives a Split" in capsys.readouterr().err
