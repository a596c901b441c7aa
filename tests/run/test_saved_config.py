"""The config of a run, read again from its file."""

import re

import pytest
import yaml

import deepexp
from deepexp.errors import InputError
from deepexp.run import saved_config
from deepexp.run.rundir import RunDirectory

SMALL = ["data=synthetic", "data.train_samples=20", "data.test_samples=10", "batch_size=20", "epochs=1"]


def test_it_is_what_the_run_was_started_with(run):
    result = run([*SMALL, "optim.lr=0.03"])
    values, config = saved_config.read(RunDirectory.open(result.directory))
    assert values == yaml.safe_load((result.directory / ".hydra" / "config.yaml").read_text())
    assert config.optim.component.arguments["lr"] == values["optim"]["lr"] == 0.03 and config.batch_size == 20


def test_the_file_is_named_where_a_key_is_missing(run):
    """As where it was cut short: the command that goes on with it has no key to be missing."""
    directory = run(SMALL).directory
    file = directory / ".hydra" / "config.yaml"
    text = file.read_text()
    file.write_text(text[: text.index("batch_size:")])
    with pytest.raises(InputError, match=re.escape(f"{file} is damaged: schedule: is missing")):
        deepexp.train([f"resume={directory}", "epochs=2"], quiet=True)


def test_a_finished_run_is_shown_also_where_its_model_is_not_known(run):
    """Nothing is built of it: what it came to stands in its summary."""
    result = run(SMALL)
    file = result.directory / ".hydra" / "config.yaml"
    file.write_text(file.read_text().replace("deepexp.models.mnist_net.MnistNet", "their_net.Net"))
    assert deepexp.train([f"resume={result.directory}"], quiet=True).test_error_rate == result.test_error_rate
    with pytest.raises(InputError, match=r"their_net"):
        deepexp.train([f"resume={result.directory}", "epochs=2"], quiet=True)
