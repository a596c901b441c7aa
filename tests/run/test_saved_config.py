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
    for words in ([], ["epochs=2"]):
        with pytest.raises(InputError, match=re.escape(f"{file} is damaged: schedule: is missing")):
            deepexp.train([f"resume={directory}", *words], quiet=True)
