"""Composing a config, and one line for each mistake in the overrides."""

import shlex
import sys

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.version import VersionBase
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError

from deepexp import paths
from deepexp.cli import main
from deepexp.config.compose import check_jobs, compose, expand_sweep
from deepexp.errors import InputError

from ..files import write


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Called from an empty folder, as a user would."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def complaints(*overrides):
    with pytest.raises(InputError) as caught:
        compose(overrides)
    return str(caught.value).splitlines()


def test_the_config_of_a_command():
    composed = compose(["optim=adam", "batch_size=32", "optim.lr=0.5"])
    assert composed.config.batch_size == 32
    assert composed.config.optim.lr == 0.5
    assert composed.choices["optim"] == "adam"
    assert composed.choices["data"] == "digits"
    assert composed.choices["experiment"] is None
    assert "hydra" not in composed.config
    assert composed.hydra.runtime.choices["optim"] == "adam"
    assert composed.overrides == ["optim=adam", "batch_size=32", "optim.lr=0.5"]


def test_every_value_has_a_type_and_interpolations_are_kept():
    composed = compose([])
    assert OmegaConf.to_container(composed.config, resolve=False)["data"]["root"].startswith("${oc.env:")
    with pytest.raises(ConfigAttributeError):
        composed.config.no_such_key = 1


def test_a_preset_and_overrides_of_it():
    composed = compose(["experiment=resnet20_cifar10", "epochs=3"])
    assert composed.choices["model"] == "resnet"
    assert composed.choices["data"] == "cifar10"
    assert composed.config.epochs == 3
    assert composed.choices["experiment"] == "resnet20_cifar10"
    assert compose(["experiment=resnet20_cifar10", "data=digits"]).choices["data"] == "digits"


def test_composing_twice_gives_equal_separate_configs():
    first, second = (compose(["optim=adam"]) for _ in range(2))
    assert first.config == second.config
    assert first.config is not second.config
    assert not GlobalHydra.instance().is_initialized()


def test_composing_what_was_composed_gives_the_same():
    composed = compose(["data.root=a b,c", "optim=adam"])
    again = compose(composed.overrides)
    assert again.config == composed.config
    assert again.overrides == composed.overrides


def test_composing_leaves_another_hydra_program_alone(tmp_path):
    write(tmp_path / "theirs" / "config.yaml", "theirs: 1\n")
    with initialize_config_dir(str(tmp_path / "theirs"), version_base="1.2"):
        outer = GlobalHydra.instance().hydra
        assert compose([]).config.batch_size == 100
        with pytest.raises(InputError):
            compose(["nonsense"])
        assert GlobalHydra.instance().hydra is outer
        assert str(VersionBase.instance().getbase()) == "1.2"
        assert hydra_compose("config").theirs == 1


def test_another_hydra_program_does_not_see_the_users_conf_through_us(tmp_path):
    write(tmp_path / "conf" / "db" / "mine.yaml", "a: 1\n")
    write(tmp_path / "theirs" / "config.yaml", "theirs: 1\n")
    with initialize_config_dir(str(tmp_path / "theirs"), version_base="1.2"):
        sources = GlobalHydra.instance().config_loader().get_search_path().get_path()
        assert str(tmp_path / "conf") not in [source.path for source in sources]


def test_path_keys_take_any_path():
    path = "a b,(1)=#'ü\""
    composed = compose([f"data.root={path}", f"output_dir={path}", "resume=~/d"])
    assert composed.config.data.root == composed.config.output_dir == path
    assert composed.config.resume == "~/d"
    assert compose(["resume=null"]).config.resume is None


class TestUsersConf:
    def test_adds_options(self, tmp_path):
        write(tmp_path / "conf" / "optim" / "mine.yaml", "# Mine\n_target_: my_optimizer.Mine\nlr: 7\n")
        composed = compose(["optim=mine"])
        assert composed.choices["optim"] == "mine"
        assert composed.config.optim.lr == 7
        assert composed.config.optim.groups == []

    def test_builds_on_options_of_the_package(self, tmp_path):
        write(tmp_path / "conf" / "optim" / "mine.yaml", "# Mine\ndefaults: [adam, _self_]\nlr: 7\n")
        optim = compose(["optim=mine"]).config.optim
        assert optim.lr == 7
        assert optim._target_ == compose(["optim=adam"]).config.optim._target_

    def test_never_replaces_one(self, tmp_path):
        before = compose(["optim=adam"]).config
        write(tmp_path / "conf" / "optim" / "adam.yaml", "# Not this one\n_target_: evil.Adam\n")
        write(tmp_path / "conf" / "train.yaml", "batch_size: 1\n")
        assert compose(["optim=adam"]).config == before

    def test_is_where_deepexp_is_called_from(self, tmp_path, monkeypatch):
        write(tmp_path / "conf" / "optim" / "mine.yaml", "# Mine\nlr: 7\n")
        (tmp_path / "sub").mkdir()
        monkeypatch.chdir(tmp_path / "sub")
        assert complaints("optim=mine")[0].startswith("optim: 'mine' is not allowed")

    def test_its_modules_can_be_imported(self, tmp_path):
        write(tmp_path / "module_of_my_own.py", "here = 1\n")
        compose([])
        import module_of_my_own

        assert module_of_my_own.here == 1


WRONG = [
    ("optim=adma", "optim: 'adma' is not allowed (did you mean 'adam'?); one of adadelta, adagrad, adam, "),
    ("optim=0.1", "optim: 0.1 is not allowed; one of adadelta, "),
    ("optim=null", "optim: null is not allowed; one of adadelta, "),
    ("optim=[adam]", "optim: ['adam'] is not allowed"),
    ("experiment=nope", "experiment: 'nope' is not allowed; one of batch_norm_lr, "),
    ("optmi=adam", "optmi: there is no such key (did you mean 'optim'?)"),
    ("optimizer=adam", "optimizer: there is no such key (did you mean 'optim'?)"),
    ("lr=0.1", "lr: there is no such key (did you mean 'optim.lr'?)"),
    ("learning_rate=0.1", "learning_rate: there is no such key (did you mean 'optim.lr'?)"),
    ("root=x", "root: there is no such key (did you mean 'data.root'?)"),
    ("optm.lr=1", "optm.lr: there is no such key (did you mean 'optim.lr'?)"),
    ("batch-size=1", "batch-size: there is no such key (did you mean 'batch_size'?)"),
    ("data.rot=1", "data.rot: there is no such key (did you mean 'data.root'?)"),
    ("checkpoint.every=1", "checkpoint.every: there is no such key (did you mean 'checkpoint.every_minutes'?)"),
    ("optim.betas=[0.9,0.9]", "optim.betas: there is no such key in this optim; optim=adam and optim=adamax and "),
    ("optim.zzz=1", "optim.zzz: there is no such key; optim has groups, lr, "),
    ("zzz=1", "zzz: there is no such key; `deepexp train --help` lists the keys"),
    ("batch_size.x=1", "batch_size.x: there is no such key; batch_size is one value and has no keys to set"),
    ("freeze.share=1", "freeze.share: there is no such key; freeze is null and has no keys to set"),
    ("~zzz", "zzz: there is nothing to delete"),
    ("+epochs=3", "epochs: is there already; leave out the +"),
    ("adam", "'adam' is not of the form KEY=VALUE (did you mean 'optim=adam'?)"),
    *((word, f"'{word}' is not of the form KEY=VALUE") for word in ("", "=3")),
    ("ü=3", "'ü=3': 'ü' cannot be a key"),
    ("epochs=[1", "epochs: [1 cannot be read as a value: its [ is not closed"),
    ("epochs=1,2", "epochs: 1,2 is several values; deepexp train -m runs them all, or write [a,b] for a list"),
    ("hydra.nope=1", "hydra.nope: there is no such key; hydra has run, "),
    ("hydra.sweeper.params.a=1", "hydra.sweeper.params.a: there is no such key; hydra.sweeper.params has none"),
    ("hydra/launcher=nope", "hydra/launcher: 'nope' is not allowed; one of basic, deepexp"),
]


def test_everything_is_reported_together_in_the_order_given_with_a_line_each():
    found = complaints(*(override for override, _ in WRONG))
    for line, (override, expected) in zip(found, WRONG, strict=True):
        assert line.startswith(expected), override


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("optim@here=adam", "Could not override 'optim@here'."),
        ("epochs=${nope}", "epochs: ${nope} cannot be resolved: Interpolation key 'nope' not found"),
        ("epochs=${epochs}", "epochs: ${epochs} cannot be resolved: Recursive interpolation detected"),
        ("epochs=???", "epochs: has no value yet (???)"),
        ("seed=${oc.env:DEEPEXP_NOT_SET}", "seed: ${oc.env:DEEPEXP_NOT_SET} cannot be resolved: "),
        ("optim=null", "optim: null is not allowed; one of adadelta, "),
        ("optim=[adam]", "optim: ['adam'] is not allowed"),
        ("experiment=nope", "experiment: 'nope' is not allowed; one of batch_norm_lr, "),
        ("optmi=adam", "optmi: there is no such key (did you mean 'optim'?)"),
        ("epochs=1,2", "epochs: 1,2 is several values; deepexp train -m runs them all, or write [a,b] for a list"),
    ],
)
def test_a_mistake_gets_one_line(override, line):
    (found,) = complaints(override)
    assert found.startswith(line)


def test_a_misspelt_section_comes_before_the_same_word_elsewhere():
    assert complaints("data=synthetic", "channels=1") == [
        "channels: there is no such key (did you mean 'model.input.channels'?)"
    ]
    assert complaints("data=synthetic", "dta.channels=1") == [
        "dta.channels: there is no such key (did you mean 'data.channels'?)"
    ]


def test_the_advice_on_quoting_can_be_followed():
    (found,) = complaints("name.x=a=b")
    assert "quote it twice" in found
    (advice,) = shlex.split(found.partition("quote it twice: ")[2])
    assert complaints(advice) == ["name.x: there is no such key; name is null and has no keys to set"]


def test_a_mapping_for_a_list_and_a_list_for_a_mapping_are_refused():
    assert complaints("optim.groups={pattern: a}") == ["optim.groups: {pattern: a} is not allowed; a list"]
    assert complaints("checkpoint=[1]") == ["checkpoint: [1] is not allowed; a mapping is needed"]


def test_types_of_values_are_not_checked_here():
    assert compose(["batch_size=abc"]).config.batch_size == "abc"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("# x\na: 1\n\tb: 2\n", "conf/optim/bad.yaml:3: a tab stands where only blanks may"),
        ("# x\na: 1\na: 2\n", "conf/optim/bad.yaml:3: found duplicate key a"),
        ("# x\na: 1\n  b: 2\n", "conf/optim/bad.yaml:3: KEY: VALUE stands where it cannot (its indentation"),
        ("# x\na: 1\nb:2\nc: 3\n", "conf/optim/bad.yaml:3: is no KEY: VALUE, with a colon and a blank"),
        ("# x\na: [1\n", "conf/optim/bad.yaml:3: expected ',' or ']'"),
        ("# x\na: *here\n", "conf/optim/bad.yaml:2: found undefined alias 'here'"),
        ("# x\na: !!python/name:os.system\n", "conf/optim/bad.yaml:2: could not determine a constructor"),
        ("# x\n- 1\n", "conf/optim/bad.yaml: is a list; what is needed are lines of KEY: VALUE"),
        ("3\n", "conf/optim/bad.yaml: Invalid loaded object type: int"),
        ("a: !!int x\n", "conf/optim/bad.yaml: invalid literal for int"),
        ("a: \x00\n", "conf/optim/bad.yaml: unacceptable character #x0000"),
        ("# x\ndefaults:\n  - adma\n", "conf/optim/bad.yaml:3: there is no optim/adma (did you mean 'adam'?)"),
        ("# x\ndefaults:\n  - /modell: resnet\n", "conf/optim/bad.yaml:3: there is no modell/resnet"),
        ("# x\ndefaults: 3\n", "conf/optim/bad.yaml: Invalid defaults list"),
        ("# x\ndefaults:\n  - bad\n", "conf/optim/bad.yaml: its defaults list leads back to it"),
        ("# x\na: ${.b}\nb: ${.a}\n", "conf/optim/bad.yaml:2: optim.a: ${.b} cannot be resolved: Recursive"),
        ("# x\na:\n  - b: ${zzz}\n", "conf/optim/bad.yaml:3: optim.a[0].b: ${zzz} cannot be resolved"),
        ("# x\na: ${zzz\n", "conf/optim/bad.yaml: no viable alternative at input '${zzz'"),
        ("# x\na: ???\n", "conf/optim/bad.yaml:2: optim.a: has no value yet (???)"),
        ("# @package a b\na: 1\n", "conf/optim/bad.yaml: Too many components"),
    ],
)  # fmt: skip
def test_broken_yaml_of_the_user_is_named_with_its_line(tmp_path, text, line):
    write(tmp_path / "conf" / "optim" / "bad.yaml", text)
    assert complaints("optim=bad")[0].replace("\\", "/").startswith(line)


def test_a_group_of_the_user_that_no_defaults_list_has_is_refused(tmp_path):
    write(tmp_path / "conf" / "mine" / "a.yaml", "# x\na: 1\n")
    (line,) = complaints("mine=a")
    assert "no defaults list has the group 'mine'; one of model, data, optim, schedule, augment, " in line


def test_a_broken_value_is_blamed_on_the_file_read_last(tmp_path):
    write(tmp_path / "conf" / "optim" / "base.yaml", "# x\na: ${zzz}\n")
    write(tmp_path / "conf" / "optim" / "mine.yaml", "# x\ndefaults: [base, _self_]\n\na: ${yyy}\n")
    (line,) = complaints("optim=mine")
    assert line.replace("\\", "/").startswith("conf/optim/mine.yaml:4: optim.a: ${yyy} cannot be resolved")


def test_yaml_that_is_not_utf8_is_named(tmp_path):
    write(tmp_path / "conf" / "optim" / "bad.yaml", "")
    (tmp_path / "conf" / "optim" / "bad.yaml").write_bytes(b"# \xff\na: 1\n")
    (line,) = complaints("optim=bad")
    assert line.startswith(str(paths.shown(tmp_path / "conf" / "optim" / "bad.yaml")))
    assert "utf-8" in line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("# x\n# @package _global_\nepochs: 3\n", ":1: a preset begins with the line '# @package _global_'"),
        ("# @package _global_\n# x\ndefaults: [override /optim: adma]\n", ":3: there is no optim/adma (did you mean"),
        ("# x\ndefaults:\n  - override /optim: adam\n", ":1: a preset begins with the line '# @package _global_'"),
        ("# @package _global_\n# x\ndefaults: [optim: adam]\n", ":3: there is no experiment/optim/adam; a preset"
         " chooses an option with '- override /optim: adam'"),
        ("# @package _global_\n# x\ndefaults:\n  - override /zzz: adam\n", ": no defaults list has the group 'zzz'"),
        ("# @package _global_\n# x\ndefaults: [override optim: adam]\n", ": a preset chooses an option with "
         "'- override /optim: NAME'"),
        ("# @package _global_\n# x\ndefaults: [/optim: adam]\n", ": a preset chooses an option with "
         "'- override /optim: NAME'"),
        ("# @package _global_\n# x\nhydra:\n  sweper: {params: 1}\n", ": hydra.sweper: there is no such key"),
        ("# @package _global_\n# x\nhydra:\n  run: {dir: here}\n", ":4: hydra.run: has no effect; output_dir and name"),
    ],
)  # fmt: skip
def test_a_broken_preset_is_named_with_its_line(tmp_path, text, line):
    write(tmp_path / "conf" / "experiment" / "bad.yaml", text)
    assert complaints("experiment=bad")[0].replace("\\", "/").startswith(f"conf/experiment/bad.yaml{line}")


def test_hydra_keys_without_effect_are_found_in_the_defaults_of_a_preset(tmp_path):
    folder = tmp_path / "conf" / "experiment"
    write(folder / "base.yaml", "# @package _global_\n# x\nhydra: {verbose: true}\n")
    write(folder / "base" / "alone.yaml", "# @package _global_\n# x\nepochs: 3\n")
    write(folder / "base" / "quick.yaml", "# @package _global_\n# x\ndefaults: [/experiment/base]\nepochs: 3\n")
    (line,) = complaints("experiment=base", "scale=quick")
    assert line.replace("\\", "/").startswith(
        "conf/experiment/base.yaml:3: hydra.verbose: has no effect; the whole log"
    )
    assert compose(["experiment=base", "scale=alone"]).config.epochs == 3


def test_a_broken_file_that_was_not_chosen_does_no_harm(tmp_path):
    write(tmp_path / "conf" / "optim" / "bad.yaml", "a: [")
    assert compose(["optim=adam"]).choices["optim"] == "adam"
    assert complaints("lr=1") == ["lr: there is no such key (did you mean 'optim.lr'?)"]


class TestSweep:
    def test_every_combination_with_the_last_key_varying_fastest(self):
        jobs = expand_sweep(["optim=sgd,adam", "epochs=3", "seed=range(2)"])
        assert jobs == [
            ["optim=sgd", "epochs=3", "seed=0"],
            ["optim=sgd", "epochs=3", "seed=1"],
            ["optim=adam", "epochs=3", "seed=0"],
            ["optim=adam", "epochs=3", "seed=1"],
        ]

    def test_choice_and_glob_are_expanded(self):
        assert expand_sweep(["epochs=choice(1,[2,3])"]) == [["epochs=1"], ["epochs=[2,3]"]]
        assert expand_sweep(["optim=glob(adam*)"]) == [["optim=adam"], ["optim=adamax"], ["optim=adamw"]]

    def test_true_and_false_stay_as_they_were_typed(self):
        assert expand_sweep(["batch_norm=true,false,null"]) == [
            ["batch_norm=true"],
            ["batch_norm=false"],
            ["batch_norm=null"],
        ]

    def test_a_path_is_one_value(self):
        assert expand_sweep(["data.root=a,b"]) == [["data.root='a,b'"]]
        jobs = expand_sweep(["data.root=choice('a b','x=1,y',c)"])
        assert [compose(job).config.data.root for job in jobs] == ["a b", "x=1,y", "c"]

    def test_values_of_a_path_key_that_are_no_paths_are_swept(self):
        jobs = expand_sweep(["model=monster", "model.pretrained=true,false,auto"])
        assert [compose(job).config.model.pretrained for job in jobs] == [True, False, "auto"]

    def test_nothing_swept_is_one_job(self):
        assert expand_sweep([]) == [[]]

    def test_an_interval_has_no_grid(self):
        with pytest.raises(InputError, match=r"optim.lr=interval\(0,1\): has no grid; use choice\(…\) or range\(…\)"):
            expand_sweep(["optim.lr=interval(0,1)"])

    def test_mistakes_of_all_jobs_are_reported_together(self):
        jobs = expand_sweep(["optim=adam,sgd,adma", "optim.betas=[0.9,0.9]", "zzz=1,2"])
        with pytest.raises(InputError) as caught:
            check_jobs(jobs)
        found = str(caught.value).splitlines()
        assert [line.split(" (")[0].split(";")[0] for line in found] == [
            "zzz: there is no such key",
            "optim.betas: there is no such key in this optim",  # adam has it, sgd has not
            "optim: 'adma' is not allowed",
        ]

    def test_correct_jobs_pass_the_check(self):
        check_jobs(expand_sweep(["optim=sgd,adam", "optim.lr=0.1,0.2"]))


@pytest.mark.parametrize(("name", "word"), [("18", "18"), ("true", "True"), ("nan", "nan")])
def test_an_option_whose_name_reads_as_a_value_is_quoted(tmp_path, monkeypatch, name, word):
    (tmp_path / "conf" / "optim").mkdir(parents=True)
    (tmp_path / "conf" / "optim" / f"{name}.yaml").write_text("_target_: torch.optim.SGD\n_partial_: true\nlr: 0.1\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        compose([f"optim={word}"])
    assert str(caught.value) == (
        f"optim: {name} is read as a value, and not as a name; quote it twice: optim=\"'{name}'\""
    )
    assert compose([f"optim='{name}'"]).choices["optim"] == name


def test_a_value_of_an_override_is_blamed_on_no_file(tmp_path, capsys):
    text = "# @package _global_\n# x\nmodel:\n  dropout: 0.1\nlabel_smoothing: ${optim.lr}\n"
    write(tmp_path / "conf" / "experiment" / "mine.yaml", text)
    assert main(["train", "experiment=mine", "model.dropout=7"]) == 2
    assert capsys.readouterr().err.startswith("deepexp: model")
    assert main(["train", "-m", "experiment=mine", "optim.lr=2,3,4"]) == 2  # one line, as for values of overrides
    assert "all 3 points: label_smoothing: 2, 3, " in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("words", [["train"], ["train", "-m", "seed=0,1"]])
def test_wrong_values_in_a_file_of_the_user_are_named_with_their_line(tmp_path, capsys, words):
    text = "# @package _global_\n# x\nepoch: 3\nbatch_size: 0\nval_fraction: 2\nfreeze:\n  - pattern: a\n    share: 9\n"
    write(tmp_path / "conf" / "experiment" / "mine.yaml", text)
    assert main([*words, "experiment=mine", "batch_size=-1", "optim.lr=x"]) == 2
    error = capsys.readouterr().err.replace("\\", "/").replace("all 2 points: ", "").replace("nothing was started", "")
    assert [line[: line.index(" is ")] for line in error.splitlines() if " is " in line] == [
        "deepexp: conf/experiment/mine.yaml:3: epoch: there",
        "deepexp: batch_size: -1",  # an override's, and no file's
        "deepexp: conf/experiment/mine.yaml:8: freeze[0].share: 9",
        "deepexp: conf/experiment/mine.yaml:5: val_fraction: 2",
        "deepexp: optim.lr: 'x'",
    ]
