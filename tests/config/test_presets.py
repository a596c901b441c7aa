"""Presets and their scales: what `scale=…` selects, what is refused, and that all of them pass the check."""

import re
import sys

import pytest
from omegaconf import OmegaConf

import deepexp
from deepexp import check, paths
from deepexp.config import catalogue, presets
from deepexp.config.compose import compose
from deepexp.config.presets import with_scale
from deepexp.errors import InputError
from deepexp.sweep import sweeper
from deepexp.sweep.command import run_sweep
from deepexp.text.console import Console

from ..files import write

NAMES = catalogue.names("experiment")
SWEEPS = [name for name in NAMES if name not in ("lecture_mnist", "resnet20_cifar10")]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A user's folder with one preset without scales, and one with a smaller scale."""
    write(tmp_path / "conf" / "experiment" / "single.yaml", "# @package _global_\n# One size\nepochs: 3\n")
    write(tmp_path / "conf" / "experiment" / "sized.yaml", "# @package _global_\n# Two sizes\nepochs: 4\n")
    tiny = "# @package _global_\n# Tiny\ndefaults: [/experiment/sized]\nepochs: 1\n"
    write(tmp_path / "conf" / "experiment" / "sized" / "tiny.yaml", tiny)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["experiment=momentum"], ["experiment=momentum"]),
        (["experiment=momentum", "scale=standard"], ["experiment=momentum"]),
        (["scale=quick", "epochs=2", "experiment=momentum"], ["epochs=2", "experiment=momentum/quick"]),
        (["experiment=momentum", "scale=quick", "scale=full"], ["experiment=momentum/full"]),
        (["experiment=momentum,dropout", "scale=full"], ["experiment=momentum/full,dropout/full"]),
        (["model=resnet"], ["model=resnet"]),
    ],
)
def test_a_scale_is_part_of_the_presets_name(words, expected):
    assert with_scale(words) == expected
    assert with_scale(expected) == expected


WRONG = [
    (["experiment=momentum", "scale=quik"],
     "scale: 'quik' is not allowed (did you mean 'quick'?); experiment=momentum has quick, standard, full"),
    (["experiment=momentum", "scale=null"], "scale: 'null' is not allowed (did you mean 'full'?); "),
    (["experiment=momentum", "scale=quick,full"], "scale: 'quick,full' is not allowed"),
    (["scale=quick"], "scale: is the size of a preset, and none is chosen; add experiment=NAME"),
    (["scale=quick", "experiment=null"], "scale: is the size of a preset, and none is chosen"),
    (["experiment=single", "scale=quick"], "scale: experiment=single has one size only; leave out scale"),
    (["experiment=sized", "scale=quick"], "scale: 'quick' is not allowed; experiment=sized has standard, tiny"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "line"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_a_scale_that_is_not_there_is_refused(own, words, line):
    with pytest.raises(InputError) as caught:
        compose(words)
    assert str(caught.value).startswith(line)


def test_a_wrong_scale_is_reported_with_other_mistakes():
    with pytest.raises(InputError) as caught:
        compose(["experiment=momentun", "scale=quick", "optmi=adam"])
    assert [line.split(" (")[0].split(";")[0] for line in str(caught.value).splitlines()] == [
        "experiment: 'momentun' is not allowed",
        "scale: there is no preset 'momentun' that could have one",
        "optmi: there is no such key",
    ]


def test_a_preset_of_the_users_own_can_have_scales(own):
    assert compose(["experiment=single"]).config.epochs == 3
    assert compose(["experiment=sized"]).config.epochs == 4
    composed = compose(["experiment=sized", "scale=tiny"])
    assert (composed.config.epochs, composed.choices["experiment"]) == (1, "sized/tiny")
    assert compose(["experiment=sized", "scale=tiny", "epochs=7"]).config.epochs == 7


@pytest.mark.parametrize("scale", ["quick", "standard", "full"])
@pytest.mark.parametrize("name", NAMES)
def test_every_preset_passes_the_check_at_every_scale(name, scale):
    """Its last point passes the check that a run makes before it begins; quick ones need no download."""
    words = [f"experiment={name}", f"scale={scale}"]
    hydra = OmegaConf.to_container(compose(words).hydra.sweeper)
    found = sweeper.points({key: value for key, value in hydra.items() if key != "_target_"}, words)
    composed = compose(found[-1])
    check.typed_and_planned(OmegaConf.to_container(composed.config, resolve=True))
    assert composed.config.name == name
    assert (composed.choices["data"] == "digits") == (scale == "quick")
    assert (len(found) > 1) == (name in SWEEPS)


@pytest.mark.parametrize("name", NAMES)
def test_the_data_of_a_preset_can_be_replaced(name):
    composed = compose([f"experiment={name}", "data=image_folder", "data.root=somewhere"])
    assert composed.choices["data"] == "image_folder"
    assert composed.config.data.root == "somewhere"


@pytest.mark.parametrize("name", SWEEPS)
@pytest.mark.parametrize("more", [[], ["dry_run=true"]], ids=["run", "shown"])  # the command that is named takes none
def test_a_preset_that_sweeps_is_refused_as_a_single_run(name, more):
    with pytest.raises(InputError) as caught:
        deepexp.train([f"experiment={name}", "scale=quick", *more], quiet=True)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"experiment={name}/quick: is a sweep over ")
    assert f"deepexp train -m experiment={name} scale=quick;" in line


def test_a_single_point_of_a_preset_can_be_run(run):
    result = run(["experiment=minibatch_size", "scale=quick", "batch_size=50", "epochs=1"])
    assert result.metrics[-1]["step"] == 29  # 1,438 samples in batches of 50


@pytest.mark.parametrize("path", sorted((paths.CONF_DIR / "experiment").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_header_of_a_preset_has_command_time_and_result(path):
    text = path.read_text(encoding="utf-8")
    header = text[: text.index("\ndefaults:")]
    flag = "-m " if path.stem in SWEEPS else ""
    assert f"#   deepexp train {flag}experiment={path.stem}" in header
    assert re.search(r"minutes?|hours?|seconds?", header)
    assert "Result" in header
    assert presets.scales(path.stem) == ["quick", "standard", "full"]


def quick(name, tmp_path, *words):
    """The runs of a preset at its quick scale, by what varies in them."""
    given = [f"experiment={name}", "scale=quick", "device=cpu", f"output_dir={tmp_path}", *words]
    found = run_sweep(given, Console("quiet"))
    assert not found.failures
    return {tuple(row.varying.values()): deepexp.load_run(found.directory / row.directory) for row in found.rows}


@pytest.mark.slow
def test_smaller_batches_have_lower_loss_after_equal_epochs(tmp_path):
    runs = quick("minibatch_size", tmp_path, "epochs=2", "batch_size=10,100,full")
    losses = [runs[(size,)].metrics[-1]["train_loss"] for size in ("10", "100", "full")]
    assert losses == sorted(losses)
    assert losses[0] < 0.5 * losses[-1]


@pytest.mark.slow
def test_batch_norm_with_a_larger_rate_needs_fewer_updates(tmp_path):
    """Ioffe and Szegedy 2015, figure 3: five times the rate reaches the baseline's best in fewer updates."""
    runs = quick("batch_norm_lr", tmp_path, "epochs=4")
    baseline, faster = runs["false", "0.1", "relu"].metrics, runs["true", "0.5", "relu"].metrics
    best = min(line["test_errors"] for line in baseline)
    first = next(line["step"] for line in faster if line["test_errors"] <= best)
    assert first < next(line["step"] for line in baseline if line["test_errors"] == best)


@pytest.mark.slow
def test_depth_hurts_the_plain_network_but_not_the_residual_one(tmp_path):
    runs = quick("plain_vs_residual", tmp_path)
    error = {key: found.metrics[-1]["train_error_rate"] for key, found in runs.items()}
    plain, residual = (error[kind, "26"] - error[kind, "8"] for kind in ("none", "pad"))
    assert plain > 0.05
    assert residual < 0.02


@pytest.mark.slow
def test_too_much_momentum_raises_the_loss(tmp_path):
    runs = quick("momentum", tmp_path)
    losses = [runs[(momentum,)].metrics[-1]["train_loss"] for momentum in ("0.9", "0.5", "0.0")]
    assert losses == sorted(losses)
    assert runs[("0.99",)].metrics[-1]["train_loss"] > 1.2 * losses[0]


@pytest.mark.slow
def test_freeze_rules_can_be_swept(tmp_path):
    runs = quick("monster_cifar10", tmp_path, "epochs=2", "data.subset=200", "model.nb_residual_blocks=1")
    assert len(runs) == 3
    names = sorted(found.directory.name for found in runs.values())
    assert [name.rpartition("-")[0] for name in names] == [
        f"freeze=pattern_features.,share_{share}" for share in ("0.0", "0.5", "1.0")
    ]
