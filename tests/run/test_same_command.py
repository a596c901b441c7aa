"""`resume=auto`: a command that is given again goes on with what it began."""

import json
from pathlib import Path

import pytest

import deepexp
from deepexp import cli
from deepexp.commands.train import train
from deepexp.errors import InputError, Paused
from deepexp.text.console import Console

from ..resumed import SMALL
from ..same_run import assert_same_run

WORDS = ["threads=1", "device=cpu", *SMALL]
AGAIN = [*WORDS, "resume=auto"]


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def cut_off(words):
    """Train to the end of the first epoch."""
    with pytest.raises(Paused):
        train(words, Console("quiet"), until=1)


def begun(folder="outputs/mnist_net"):
    return sorted(Path(folder).resolve().iterdir())


def test_the_first_time_a_run_begins_and_then_it_is_gone_on_with_to_its_end():
    cut_off(AGAIN)
    gone_on = deepexp.train(AGAIN, quiet=True)
    assert [gone_on.directory.resolve()] == begun()
    whole = deepexp.train([*WORDS, "output_dir=whole"], quiet=True)
    assert_same_run(gone_on.directory, whole.directory)
    finished = (gone_on.directory / "metrics.jsonl").read_bytes()
    assert deepexp.train(AGAIN, quiet=True).test_loss == gone_on.test_loss
    assert len(begun()) == 1 and (gone_on.directory / "metrics.jsonl").read_bytes() == finished


def test_the_order_of_the_words_makes_no_difference_and_the_newest_run_is_taken():
    for _ in range(2):
        cut_off(WORDS)
    older, newer = begun()
    names = ["2001-01-01_00-00-00_abcdef", "2002-01-01_00-00-00_000000"]
    places = [path.rename(path.with_name(name)) for path, name in zip((older, newer), names, strict=True)]
    gone_on = deepexp.train(AGAIN[::-1], quiet=True)
    assert gone_on.directory.resolve() == places[1]


@pytest.mark.parametrize("other", [["seed=1"], ["seed=0"], ["name=other"], ["output_dir=elsewhere"]])
def test_other_words_begin_another_run(other):
    cut_off(WORDS)
    (first,) = begun()
    made = deepexp.train([*AGAIN, *other], quiet=True)
    assert made.directory.resolve() != first
    assert json.loads((first / "status.json").read_text())["status"] == "paused"


def test_of_a_key_that_is_given_twice_the_order_counts():
    cut_off([*WORDS, "optim.lr=0.02", "optim.lr=0.05"])
    made = deepexp.train([*AGAIN, "optim.lr=0.05", "optim.lr=0.02"], quiet=True)
    assert made.config["optim"]["lr"] == 0.02 and len(begun()) == 2
    deepexp.train(["optim.lr=0.05", *AGAIN, "optim.lr=0.02"], quiet=True)
    assert len(begun()) == 2


def test_an_edited_option_begins_another_run_and_says_so(tmp_path, capsys):
    option = tmp_path / "conf" / "optim" / "mine.yaml"
    option.parent.mkdir(parents=True)
    option.write_text("# mine\n_target_: torch.optim.SGD\n_partial_: true\nlr: 0.1\n")
    cut_off([*WORDS, "optim=mine"])
    begun()[0].rename(begun()[0].with_name("2001-01-01_00-00-00_abcdef"))  # older also if all begin in one second
    option.write_text(option.read_text().replace("0.1", "0.2"))
    deepexp.train([*AGAIN, "optim=mine"])
    assert "was begun by the same command, but optim.lr is 0.2 and was 0.1: a new run begins" in capsys.readouterr().err
    assert len(begun()) == 2
    cut_off([*WORDS, "optim=mine"])
    assert deepexp.train([*AGAIN, "optim=mine"], quiet=True).directory.resolve() in begun()
    assert len(begun()) == 3, "the newest run has the edited option"


@pytest.mark.parametrize("key", ["init_from: weights/RUN", 'surgery: [{from: weights/RUN, layers: "*", to: "*"}]'])
def test_a_relative_path_in_a_preset_is_no_difference(tmp_path, key):
    first = deepexp.train([*WORDS, "output_dir=weights", "name=RUN"], quiet=True)
    preset = tmp_path / "conf" / "experiment" / "mine.yaml"
    preset.parent.mkdir(parents=True)
    preset.write_text(f"# @package _global_\n# mine\n{key.replace('RUN', f'RUN/{first.directory.name}')}\n")
    cut_off([*WORDS, "experiment=mine"])
    gone_on = deepexp.train([*AGAIN, "experiment=mine"], quiet=True)
    assert [gone_on.directory.resolve()] == begun()


def test_weights_that_are_chosen_automatically_are_no_difference():
    words = [*AGAIN, "model=monster", "model.nb_residual_blocks=1", "data.resize=32", "freeze=[]"]
    cut_off(words)
    assert deepexp.train(words, quiet=True) is not None and len(begun("outputs/monster")) == 1


def test_a_damaged_config_of_the_same_command_is_told(tmp_path):
    cut_off(WORDS)
    (begun()[0] / ".hydra" / "config.yaml").write_text("[")
    with pytest.raises(InputError, match=r"config\.yaml"):
        deepexp.train(AGAIN, quiet=True)
    assert len(begun()) == 1


def test_a_dry_run_and_cfg_are_about_a_new_run(capsys):
    cut_off(WORDS)
    assert cli.main(["train", *AGAIN, "dry_run=true"]) == cli.main(["train", *AGAIN, "--cfg", "job"]) == 0
    assert len(begun()) == 1 and "resume: null" in capsys.readouterr().out


def test_mistakes_in_the_other_words_are_told():
    with pytest.raises(InputError, match="there is no such key"):
        deepexp.train([*AGAIN, "optim.rl=3"], quiet=True)


def test_a_folder_of_that_name_can_be_meant(tmp_path):
    with pytest.raises(InputError, match="is not a run"):
        deepexp.train([*WORDS, "resume=./auto"], quiet=True)
