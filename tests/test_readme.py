"""The README is right: its code runs, its tables list what exists."""

import math
import re
import typing
from pathlib import Path

import pytest
import torch

import deepexp
from deepexp import paths, schema
from deepexp.disk import yaml_words
from deepexp.run.rundir import Status
from deepexp.sweep.command import run_sweep
from deepexp.text.console import Console
from deepexp.user_code import targets

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")


def key_table() -> str:
    """The table of keys as the README must have it."""
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for key, default, meaning in schema.describe_keys():
        escaped = meaning.replace("|", "\\|")
        rows.append(f"| `{key}` | `{yaml_words.yaml_word(default)}` | {escaped} |")
    return "\n".join(rows)


def test_the_table_of_keys_equals_the_schema():
    assert key_table() in TEXT


def test_nothing_that_the_readme_has_no_place_for_is_a_key():
    (list_of_them,) = re.findall(r"there is no\s+place\s+for\s+([^:.]+) of your own\.", TEXT)
    named = [re.sub(r"^an? ", "", words).replace(" ", "_") for words in re.split(r",\s+|\s+or\s+", list_of_them)]
    assert len(named) >= 3 and not {key for key, _, _ in schema.describe_keys()} & set(named)


@pytest.mark.parametrize("file", ["README.md", "outputs/README.md"])
def test_every_status_of_a_run_is_in_the_readme(file):
    lines = (README.parent / file).read_text(encoding="utf-8").splitlines()
    (row,) = (line for line in lines if line.startswith("| `status.json`"))
    assert not [status for status in typing.get_args(Status) if status not in row]


@pytest.fixture
def user_folder(tmp_path, monkeypatch):
    """A folder with each code block of the README that begins with a file name, as that file, and its preset."""
    for language, block in re.findall(r"```(python|yaml)\n(.*?)```", TEXT, flags=re.DOTALL):
        name = re.match(r"# (\S+\.(?:py|yaml))\n", block)
        if name:
            path = tmp_path / name[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.removeprefix(name[0]), encoding="utf-8")
            assert path.suffix == {"python": ".py", "yaml": ".yaml"}[language]
    (preset,) = re.findall(r"```yaml\n(# @package _global_\n.*?)```", TEXT, flags=re.DOTALL)
    (tmp_path / "conf" / "experiment").mkdir()
    (tmp_path / "conf" / "experiment" / "signs.yaml").write_text(preset, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_readmes_own_parts_work(user_folder):
    words = [
        "model=mlp",
        "model.hidden=30",
        "data=stripes",
        "augment=noise",
        "optim=signsgd",
        "schedule=poly",
        "loss=generalised",
    ]
    result = deepexp.train([*words, "epochs=3", "threads=1", "dropout=0.1"], quiet=True)
    assert result.model.layers[1].out_features == 30
    assert result.test_error_rate < 0.2  # stripes are easy; chance is 0.5
    assert (result.directory / "summary.json").exists()


def test_the_readmes_loss_has_a_gradient_also_where_the_probability_is_zero(user_folder):
    loss = targets.find("generalised.GeneralisedCrossEntropy")(q=0.7)
    logits = torch.tensor([[200.0, 0.0], [1.0, 0.0]], requires_grad=True)
    losses = loss(logits, torch.tensor([1, 1]))
    probability = 1 / (1 + math.e)
    assert losses.tolist() == pytest.approx([1 / 0.7, (1 - probability**0.7) / 0.7])
    losses.sum().backward()
    slope = probability**0.7 * (1 - probability)
    assert logits.grad.flatten().tolist() == pytest.approx([0.0, 0.0, slope, -slope])


def test_the_readmes_own_preset_works_as_a_run_and_as_a_sweep(user_folder):
    result = deepexp.train(["experiment=signs", "model.hidden=20", "optim.lr=0.001", "threads=1"], quiet=True)
    assert result.model.layers[1].out_features == 20 and result.test_error_rate < 0.3
    swept = run_sweep(["experiment=signs", "model.hidden=20", "threads=1"], Console("quiet"))
    assert sorted(row.varying["optim.lr"] for row in swept.rows) == ["0.0003", "0.001", "0.003"]
    assert not swept.failures


def test_a_flag_that_the_readmes_model_leaves_out_is_refused(user_folder):
    with pytest.raises(deepexp.InputError, match=r"batch_norm: model mlp\.Mlp has no place for it"):
        deepexp.train(["model=mlp", "batch_norm=true"], quiet=True)


@pytest.mark.parametrize("file", sorted(set(re.findall(r"`(conf/\S+?\.yaml|\w+\.py|deepexp/\S+?\.py)`", TEXT))))
def test_files_named_in_the_readme_exist(file):
    root = README.parent
    assert (root / file).exists() or (root / "deepexp" / file).exists()


def test_the_table_under_contributing_lists_every_module():
    listed = re.findall(r"`(?:deepexp/)?(\w+(?:\.py|/))`", TEXT[TEXT.index("## Contributing") :])
    modules = {path.name for path in paths.PACKAGE_DIR.glob("*.py") if not path.name.startswith("__")}
    rooms = {f"{path.parent.name}/" for path in paths.PACKAGE_DIR.glob("*/__init__.py")}
    assert modules | rooms <= set(listed)
