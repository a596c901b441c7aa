"""Merged options are cached until a file changes; each config is as if it were the first to be composed."""

import copy
import os
import sys
import time
from pathlib import Path

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError

from deepexp import paths
from deepexp.config import compose as module
from deepexp.config import composer, conf_files, presets
from deepexp.config.compose import check_jobs, compose, composing
from deepexp.config.overrides import quote_paths
from deepexp.errors import InputError

from ..files import write


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Called from an empty folder, in a process that has composed nothing yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(composer, "_found", [])


@pytest.fixture
def read(monkeypatch):
    """The words of each config that Hydra has read and merged."""
    found = []
    original = ConfigLoaderImpl.load_configuration

    def load(self, config_name, overrides, *arguments, **options):
        found.append(list(overrides))
        return original(self, config_name, overrides, *arguments, **options)

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", load)
    return found


def by_hydra(words):
    """The config that Hydra itself makes of these words."""
    with initialize_config_dir(str(paths.CONF_DIR), version_base="1.3"):
        return hydra_compose("train", overrides=presets.with_scale(quote_paths(words)))


JOBS = (
    [],
    ["seed=1"],
    ["seed=1", "seed=2", "seed=1", "optim=adam", "optim.betas=[0.5,0.9]", "optim.lr=0.3"],
    ["optim.lr=0.3", "seed=7", "optim=adam"],  # the values may come first
    ["optim={lr: 0.7, weight_decay: 0.1}", "model.dropout=null"],
    ["data.root=a b,c", "name='ü (1)'", "data.root=${oc.env:HOME}"],
    ["experiment=dropout", "scale=quick", "seed=4"],
    ["+optim.extra=0.9", "optim.extra=0.8", "seed=1"],
    ["++seed=3", "~augment", "seed=4"],
    ["hydra.verbose=true", "seed=1"],
    ["model=mine", "model.classes=3", "seed=1"],
    ["freeze=[{pattern: features.*, share: 0.5}]"],
    ["experiment=odd", "mine={width: 3}"],
)


def test_each_config_equals_the_one_that_hydra_composes_alone(tmp_path):
    write(tmp_path / "conf" / "model" / "mine.yaml", "_target_: torch.nn.Flatten\nclasses: ???\nwidth: 3\n")
    write(tmp_path / "conf" / "mine" / "one.yaml", "width: 1\n")
    write(tmp_path / "conf" / "experiment" / "odd.yaml", "# @package _global_\nmine: {width: 2}\n")
    expected = [OmegaConf.to_yaml(by_hydra(job)) for job in JOBS]
    with composing() as compose_job:
        together = [compose_job(job) for job in JOBS]
    alone = [compose(job) for job in JOBS]
    for job, one, words, text in zip(together, alone, JOBS, expected, strict=True):
        assert OmegaConf.to_yaml(job.config) == OmegaConf.to_yaml(one.config) == text
        assert job.overrides == one.overrides == presets.with_scale(quote_paths(words))
        assert job.choices == one.choices and job.hydra.sweeper == one.hydra.sweeper
        with pytest.raises(ConfigAttributeError):
            job.config.no_such_key = 1


WRONG = (
    ["seed=1", "zzz=1"],
    ["optim=adma", "seed=1"],
    ["optim.betas=[0.9,0.9]", "seed=1"],
    ["seed=1,2"],
    ["seed"],
    ["seed=1", "batch_size=${nowhere}", "model=mine"],
    ["seed={a: 1}", "optim=3", "+seed=1", "optim@here=sgd"],
    ["model=broken", "seed=2"],
    ["device='${oc.env:\\'HOME\\'}'"],
    ["optim.groups=[{pattern: a}]", "optim.groups.foo=1"],
)


def complaint(compose_job, job):
    with pytest.raises(InputError) as caught:
        compose_job(job)
    return str(caught.value)


def test_mistakes_are_reported_as_for_a_config_composed_alone(tmp_path, monkeypatch):
    write(tmp_path / "conf" / "model" / "mine.yaml", "_target_: torch.nn.Flatten\nclasses: ???\n")
    write(tmp_path / "conf" / "model" / "broken.yaml", "_target_: [\n")

    def as_a_whole(job):
        monkeypatch.setattr(composer, "_found", [])
        with module._hydra() as loader:
            return composer.Composer(loader).compose_whole(module._prepared(job))

    expected = [complaint(as_a_whole, job) for job in WRONG]
    monkeypatch.setattr(composer, "_found", [])
    with composing() as compose_job:
        assert [complaint(compose_job, job) for job in WRONG * 2] == expected * 2
    assert [complaint(compose, job) for job in WRONG] == expected


def test_the_same_options_are_read_once(read):
    with composing() as compose_job:
        for optimizer in ("sgd", "adam"):
            for seed in range(5):
                job = compose_job([f"optim={optimizer}", f"seed={seed}", "experiment=dropout", "scale=quick"])
                assert (job.config.seed, job.choices["optim"]) == (seed, optimizer)
    assert compose(["optim=adam", "experiment=dropout", "scale=quick", "seed=7"]).config.seed == 7
    assert len(read) == 2


def test_a_file_that_has_changed_is_read_again(tmp_path, read):
    mine = tmp_path / "conf" / "optim" / "mine.yaml"
    write(mine, "_target_: torch.optim.SGD\n_partial_: true\nlr: 0.5\n")
    assert compose(["optim=mine"]).config.optim.lr == 0.5
    write(mine, "_target_: torch.optim.SGD\n_partial_: true\nlr: 0.7\n")
    os.utime(mine, ns=(0, mine.stat().st_mtime_ns + 10_000_000))  # some file systems count time in such steps
    assert compose(["optim=mine"]).config.optim.lr == 0.7
    write(tmp_path / "conf" / "optim" / "new.yaml", "_target_: torch.optim.SGD\n_partial_: true\nlr: 0.9\n")
    assert compose(["optim=new"]).config.optim.lr == 0.9
    mine.unlink()
    assert "'mine' is not allowed" in complaint(compose, ["optim=mine"])


def test_the_conf_of_another_folder_is_read(tmp_path, monkeypatch):
    for lr in (0.5, 0.7):
        write(tmp_path / f"{lr}" / "conf" / "optim" / "mine.yaml", f"_target_: torch.optim.SGD\nlr: {lr}\n")
    for lr in (0.5, 0.7, 0.5):
        monkeypatch.chdir(tmp_path / f"{lr}")
        assert compose(["optim=mine"]).config.optim.lr == lr


def test_configs_in_hydras_config_store_are_found(monkeypatch):
    repo = ConfigStore.instance().repo
    monkeypatch.setattr(ConfigStore.instance(), "repo", copy.deepcopy(repo))
    for target in ("torch.nn.Flatten", "torch.nn.Linear"):
        ConfigStore.instance().store(group="model", name="stored", node={"_target_": target})
        assert compose(["model=stored"]).config.model._target_ == target


@pytest.mark.parametrize(
    "defaults",
    [
        "\n  - override /optim: ${oc.env:MINE}\n",
        " [{override /optim: '${oc.env:MINE}'}]\n",
        "\n  -\n    override /optim: ${oc.env:MINE}\n",
    ],
)
def test_defaults_with_environment_variables_are_read_each_time(tmp_path, monkeypatch, defaults):
    write(tmp_path / "conf" / "experiment" / "mine.yaml", f"# @package _global_\ndefaults:{defaults}")
    for optimizer in ("adam", "adagrad"):
        monkeypatch.setenv("MINE", optimizer)
        assert compose(["experiment=mine"]).choices["optim"] == optimizer


def test_an_option_named_by_an_environment_variable_is_read_each_time(monkeypatch):
    for data in ("mnist", "digits"):
        monkeypatch.setenv("MINE", data)
        assert compose(["data=${oc.env:MINE}"]).choices["data"] == data


def test_a_changed_file_of_the_same_time_and_size_is_read_again(tmp_path):
    mine = tmp_path / "conf" / "optim" / "mine.yaml"
    for lr in (0.5, 0.7):
        write(mine, f"_target_: torch.optim.SGD\nlr: {lr}\n")
        os.utime(mine, (1.7e9, 1.7e9))
        assert compose(["optim=mine"]).config.optim.lr == lr
        time.sleep(0.02)


def test_an_unreadable_file_that_was_not_chosen_does_no_harm(tmp_path, monkeypatch):
    write(tmp_path / "conf" / "optim" / "mine.yaml", "_target_: torch.optim.SGD\n")
    read_bytes = Path.read_bytes

    def refused(path):
        if path.name == "mine.yaml":
            raise PermissionError(path)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refused)
    assert compose(["seed=3"]).config.seed == 3


def test_values_with_environment_variables_are_resolved_each_time(monkeypatch):
    for root in ("here", "there"):
        monkeypatch.setenv("DEEPEXP_DATA", root)
        assert compose([]).config.data.root == root


def test_changing_a_config_changes_no_later_one():
    one = compose(["optim=adam"])
    one.config.optim.lr, one.choices["optim"] = 7.0, "changed"
    with pytest.raises(Exception, match="read-only"):
        one.hydra.job.name = "changed"
    other = compose(["optim=adam"])
    assert other.config.optim.lr == 0.001 and other.choices["optim"] == "adam"


def test_hydra_keys_can_be_set_after_an_earlier_composition():
    compose(["seed=1"])
    assert compose(["seed=1", "hydra.launcher.jobs=3"]).hydra.launcher.jobs == 3
    check_jobs([["seed=1", "hydra.launcher.jobs=3"]])


def test_links_in_a_circle_end(tmp_path):
    write(tmp_path / "conf" / "optim" / "mine.yaml", "_target_: torch.optim.SGD\nlr: 0.5\n")
    for name in ("a", "b", "c"):
        (tmp_path / "conf" / "optim" / name).symlink_to(tmp_path / "conf", target_is_directory=True)
    assert compose(["optim=mine"]).config.optim.lr == 0.5


def test_the_search_of_a_large_folder_is_given_up(tmp_path, monkeypatch):
    """For example of data, linked from conf; configs are then composed without the cache, and are the same."""
    monkeypatch.setattr(conf_files, "_MOST_ENTRIES", 500)
    for number in range(60):
        (tmp_path / "data" / str(number)).mkdir(parents=True)
        for name in range(10):
            (tmp_path / "data" / str(number) / f"{name}.png").touch()
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "data").symlink_to(tmp_path / "data")
    seen = []
    monkeypatch.setattr(conf_files.os.path, "realpath", lambda path: seen.append(path) or os.path.abspath(path))
    assert [compose([word]).config.seed for word in ("seed=1", "seed=2")] == [1, 2]
    below = [path for path in seen if path.startswith(str(tmp_path / "conf"))]
    assert 2 <= len(below) < 120 and composer._found == []


def test_the_memory_of_words_is_bounded(monkeypatch):
    monkeypatch.setattr(composer, "_MOST_WORDS", 20)
    for seed in range(100):
        compose([f"seed={seed}"])
    assert len(composer._found[0][1].read) <= 21
