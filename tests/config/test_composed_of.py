"""Runs that have lost `hydra.yaml` or `overrides.yaml`: their options are inferred from the config."""

import json

import pytest
import yaml

from deepexp import cli
from deepexp.config import compose
from deepexp.config.composed_of import GROUPS, choices_of, words_of
from deepexp.report import runs

WORDS = ["epochs=1", "data.subset=60", "data.resize=22", "batch_size=20", "threads=1", "device=cpu", "optim=momentum"]


def damage(directory, *names):
    for name in names:
        (directory / ".hydra" / f"{name}.yaml").write_bytes(b"[")


def remove(directory, *names):
    for name in names:
        (directory / ".hydra" / f"{name}.yaml").unlink()


@pytest.mark.parametrize("spoil", [damage, remove])
@pytest.mark.parametrize("names", [["overrides"], ["hydra"], ["hydra", "overrides"]], ids="+".join)
def test_a_run_without_its_hydra_files_can_be_read_tested_exported_and_resumed(
    directory, capsys, caplog, monkeypatch, tmp_path, spoil, names
):
    monkeypatch.chdir(tmp_path)
    (before,) = runs.read([directory]).runs
    spoil(directory, *names)
    (found,) = runs.read([directory]).runs
    assert found.choices == before.choices
    assert found.overrides == ([] if "overrides" in names else before.overrides)
    assert cli.main(["eval", f"run={directory}", "device=cpu"]) == 0
    assert "mnist_net on digits" in capsys.readouterr().out
    assert ("its options are inferred from its config" in caplog.text) == ("hydra" in names)
    assert cli.main(["export", f"run={directory}", "format=pt2", "check=1"]) == 0
    (directory / "events.out.tfevents.1").write_bytes(b"")
    for path in directory.glob("events.out.tfevents.1?*"):
        path.unlink()  # what TensorBoard shows is written again
    assert cli.main(["train", f"resume={directory}", "epochs=2"]) == 0
    summary = json.loads((directory / "summary.json").read_text())
    assert (summary["model"], summary["data"], summary["optim"]) == ("mnist_net", "digits", "momentum")


@pytest.mark.parametrize("option", ["sgd", "momentum", "nesterov", "adam", "muon"])
@pytest.mark.parametrize("is_changed", [False, True])
def test_an_option_is_inferred_from_its_values_or_the_overrides(directory, option, is_changed):
    remove(directory, "hydra")
    words = [f"optim={option}", "optim.lr=0.5", "optim.weight_decay=0.5"] if is_changed else [f"optim={option}"]
    composed = compose.compose(words)
    if is_changed:
        (directory / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(words))
    else:
        remove(directory, "overrides")
    config = {group: dict(composed.config[group]) for group in GROUPS}
    assert choices_of(directory, config)["optim"] == option


def test_a_users_target_is_shown_by_its_class_name(directory):
    remove(directory, "hydra", "overrides")
    assert choices_of(directory, {"model": {"_target_": "mine.Net"}})["model"] == "Net"
    assert choices_of(directory, {"model": None})["model"] is None
    assert words_of(directory) == []
