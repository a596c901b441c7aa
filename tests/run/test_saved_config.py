"""The config of a run, read again from its file."""

import re

import pytest
import yaml

from deepexp.errors import InputError
from deepexp.run import saved_config
from deepexp.run.rundir import RunDirectory

from ..resumed import resume

SMALL = ["data=synthetic", "data.train_samples=20", "data.test_samples=10", "batch_size=20", "epochs=1"]


def test_the_saved_config_is_that_of_the_run(run):
    result = run([*SMALL, "optim.lr=0.03"])
    values, config = saved_config.read(RunDirectory.open(result.directory))
    assert values == yaml.safe_load((result.directory / ".hydra" / "config.yaml").read_text())
    assert config.optim.component.arguments["lr"] == values["optim"]["lr"] == 0.03 and config.batch_size == 20


def test_keys_may_be_given_anew_with_the_values_that_the_run_has(run, monkeypatch):
    """As in the command that began it, copied."""
    words = [*SMALL[:-1], "optim=adam", "optim.lr=0.003", "seed=7", "freeze=[{pattern: conv1.*, epochs: 1}]"]
    words += ["batch_size=5", "batch_size=10", "dropout=null", "evaluate_every=${epochs}"]
    monkeypatch.delenv("DEEPEXP_DATA", raising=False)  # the default place is relative then
    directory = run([*words, "epochs=1"]).directory
    with pytest.raises(InputError, match=r"^evaluate_every: cannot be changed"):  # the same word, another value
        resume(directory, *words, "epochs=2")
    again = [*words[:-1], "clip_grad_norm=null", "epochs=2"]
    assert resume(directory, *again).epochs == 2
    for other in ("optim.lr=0.004", "seed=8", "optim=sgd", "clip_grad_norm=1", "batch_size=5", "experiment=dropout"):
        with pytest.raises(InputError, match=rf"^{other.partition('=')[0]}: cannot be changed"):
            resume(directory, "threads=1", other, "epochs=3")


def test_a_saved_config_with_a_missing_key_is_named(run):
    """For example in a file that is cut short: no key of the command is to blame."""
    directory = run(SMALL).directory
    file = directory / ".hydra" / "config.yaml"
    text = file.read_text()
    file.write_text(text[: text.index("batch_size:")])
    with pytest.raises(InputError, match=re.escape(f"{file} is damaged: schedule: is missing")):
        resume(directory, "epochs=2")


def test_a_finished_run_is_shown_without_its_model(run):
    """Its results are read from the summary, and no model is built."""
    result = run(SMALL)
    file = result.directory / ".hydra" / "config.yaml"
    file.write_text(file.read_text().replace("deepexp.models.mnist_net.MnistNet", "their_net.Net"))
    assert resume(result).test_error_rate == result.test_error_rate
    with pytest.raises(InputError, match=r"their_net"):
        resume(result, "epochs=2")
