"""Synthetic runs have the files, keys and types of a real run."""

import dataclasses
import json

import numpy as np
import pytest
import yaml

from deepexp.report.runs import read
from deepexp.sweep.ledger import Entry

from .synthetic import make_run, make_sweep


@pytest.fixture
def real(run):
    return run(["data.subset=200", "epochs=2", "val_fraction=0.2"]).directory


@pytest.fixture
def made(tmp_path):
    return make_run(tmp_path / "made", {"seed": 3}, val_error_rate=0.2, samples=300, error_rate=0.1)


def kinds(content):
    """Key → type, numbers alike."""
    return {key: "number" if isinstance(value, int | float) else type(value) for key, value in content.items()}


@pytest.mark.parametrize("name", ["status.json", "summary.json", "provenance.json"])
def test_json_files_have_the_keys_of_real_ones(real, made, name):
    contents = [kinds(json.loads((path / name).read_text())) for path in (real, made)]
    for content in contents:
        content.pop("git", None)  # a mapping in a checkout, else null
    assert contents[0] == contents[1]


def test_lines_of_metrics_have_the_keys_of_real_ones(real, made):
    real_line, made_line = (json.loads((path / "metrics.jsonl").read_text().splitlines()[0]) for path in (real, made))
    assert kinds(real_line) == kinds(made_line)


def test_the_config_has_the_keys_of_a_real_one(real, made):
    contents = [yaml.safe_load((path / ".hydra" / "config.yaml").read_text()) for path in (real, made)]
    assert set(contents[0]) == set(contents[1])
    choices = [
        yaml.safe_load((path / ".hydra" / "hydra.yaml").read_text())["runtime"]["choices"] for path in (real, made)
    ]
    assert set(choices[0]) == set(choices[1])


def test_predictions_have_the_given_error_rate(real, made):
    with np.load(real / "predictions.npz") as theirs, np.load(made / "predictions.npz") as ours:
        assert {key: array.dtype for key, array in theirs.items()} == {key: array.dtype for key, array in ours.items()}
        assert (ours["predicted"] != ours["target"]).sum() == 30


def test_a_synthetic_sweep_is_read_as_a_sweep(tmp_path):
    make_sweep(
        tmp_path / "sweep",
        {"optim.lr": [0.1, 10.0], "seed": [0, 1]},
        lambda job: float("nan") if job["optim.lr"] > 1 else 0.2,
    )
    runs = read([tmp_path]).runs
    assert [(run.config["optim.lr"], run.seed, run.status) for run in runs] == [
        (0.1, 0, "done"), (0.1, 1, "done"), (10.0, 0, "failed"), (10.0, 1, "failed"),
    ]  # fmt: skip
    assert runs[0].sweep == tmp_path / "sweep"
    assert runs[0].summary["test_error_rate"] == 0.2
    assert runs[2].reason == "the loss is nan at step 20"
    line = json.loads((tmp_path / "sweep" / "ledger.jsonl").read_text().splitlines()[0])
    assert set(line) == {"format", "time", *(field.name for field in dataclasses.fields(Entry))}
