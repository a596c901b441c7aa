from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from deepexp import check
from deepexp.config.compose import compose
from deepexp.data import digits
from deepexp.data.source import DataInfo
from deepexp.errors import InputError
from deepexp.models import pretrained
from deepexp.sweep import points
from deepexp.sweep.directory import Choices
from deepexp.sweep.points import (
    check_points,
    check_pretrained,
    choose_data_mode,
    choose_pretrained,
    config_hash,
    settled,
)
from deepexp.sweep.slots import Slot


def checked(*points: list[str], fixed: set[str] | None = None, needs_validation: bool = False) -> Any:
    return check_points(list(points), fixed or set(), needs_validation=needs_validation)


def test_threads_are_the_sweeps_unless_the_user_gives_them() -> None:
    ours, theirs = checked(["seed=1"], ["seed=1", "threads=2"])
    assert settled(ours, Choices(None, 1, "resident")).overrides == ["seed=1", "threads=1", "data.mode=resident"]
    assert settled(theirs, Choices(None, 1, "resident")).overrides == ["seed=1", "threads=2", "data.mode=resident"]


def test_points_that_differ_in_their_seed_alone_are_planned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = []
    plan = check.plan
    monkeypatch.setattr(check, "plan", lambda config: planned.append(config.optim.component.arguments) or plan(config))
    words = [[f"optim.lr={lr}", f"seed={seed}"] for lr in (0.1, 0.2) for seed in (0, 1, 2)]
    found = checked(*words, ["optim.lr=0.1", "seed=1", "model.dropout=0.5"], ["data=synthetic", "data.seed=${seed}"])
    assert len(planned) == 4
    assert [point.config.seed for point in found] == [0, 1, 2, 0, 1, 2, 1, 0]
    alone = [point for word in words for point in checked(word)]
    assert [(a.config, a.resolved, a.device, a.device_bytes) for a in alone] == [
        (b.config, b.resolved, b.device, b.device_bytes) for b in found[:6]
    ]
    small, large = checked(["batch_size=10"], ["batch_size=20"])
    assert (small.config.batch_size, large.config.batch_size) == (10, 20) and len(planned) == 4 + len(words) + 2
    with pytest.raises(InputError, match=r"^seed=-1: seed: -1 .*\nnothing was started$"):
        checked(["seed=0"], ["seed=-1"])


def test_wrong_values_of_one_key_are_reported_in_one_line() -> None:
    with pytest.raises(InputError) as refused:
        checked(*([f"batch_size={size}", "optim.lr=0.1"] for size in (55.28, 50.44, 31.55, 22.5)))
    assert str(refused.value).splitlines() == [
        "all 4 points: batch_size: 55.28, 50.44, 31.55 and 1 more are not allowed; a whole number ≥ 1 or 'full'; "
        "int(interval(…)) draws whole ones",
        "nothing was started",
    ]
    with pytest.raises(InputError, match=r"^batch_size=0 and batch_size=-1: batch_size: 0 and -1 are not allowed; a "):
        checked(["batch_size=0"], ["batch_size=-1"], ["batch_size=10"], ["batch_size=0"])


def test_pretrained_auto_is_resolved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def resolve(choice: object) -> bool:
        asked.append(choice)
        return False

    monkeypatch.setattr(pretrained, "resolve", resolve)
    points = checked(["model=monster", "seed=0"], ["model=monster", "seed=1"], ["model=mnist_net", "seed=0"])
    choice = choose_pretrained(points)
    assert asked == ["auto"] and choice is False
    words = [settled(point, Choices(choice, 1, "resident")).overrides for point in points]
    assert [("model.pretrained=false" in word) for word in words] == [True, True, False]


def test_the_data_mode_is_the_sweeps_unless_the_user_gives_it() -> None:
    ours, theirs = checked(["seed=1", "threads=1"], ["seed=1", "threads=1", "data.mode=streamed"])
    both = [settled(ours, Choices(None, 1, mode)) for mode in ("resident", "streamed")]
    assert [point.overrides[-1] for point in both] == ["data.mode=resident", "data.mode=streamed"]
    assert both[0].config_hash == both[1].config_hash  # the batches are the same
    assert settled(theirs, Choices(None, 1, "resident")).overrides == theirs.words
    assert choose_data_mode([theirs], [Slot({})]) is None


def test_all_jobs_are_resident_if_the_pictures_of_each_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    capacity: int | None = 0
    monkeypatch.setattr(points, "capacity_bytes", lambda device: capacity)
    (in_memory,) = checked(["data.subset=100", "val_fraction=0.1"])
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert in_memory.device_bytes == 0 and choose_data_mode([in_memory], [Slot({})] * 8) == "resident"
    gpus = [Slot({"CUDA_VISIBLE_DEVICES": name}) for name in "0101"]  # two jobs on each
    small, large = (replace(in_memory, device=cuda, device_bytes=size) for size in (100, 200))
    one_and_two = [Slot({"CUDA_VISIBLE_DEVICES": name}) for name in "011"]
    for capacity, expected in ((800, "resident"), (799, "streamed")):  # noqa: B007
        assert choose_data_mode([large], one_and_two) == expected  # the GPU with the most jobs decides
    on_disk = replace(large, device=cpu)
    for capacity, expected in ((800, "resident"), (799, "streamed"), (None, "resident")):  # noqa: B007
        assert choose_data_mode([large, small], gpus) == choose_data_mode([small, large], gpus) == expected
    for capacity, expected in ((400, "resident"), (399, "streamed")):  # noqa: B007
        assert choose_data_mode([in_memory, on_disk], [Slot({})] * 8) == expected  # one copy for all


def test_the_memory_of_the_pictures_is_computed_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits.Digits, "info", lambda self: DataInfo((1, 8, 8), tuple("0123456789"), 1438, 359, True))
    native, resized = (
        ["model=resnet", "data.subset=100", "val_fraction=0.1", *more] for more in ([], ["data.resize=9"])
    )
    on_disk, in_memory = checked(native, resized)
    assert on_disk.device_bytes == (100 + 144 + 359) * 64 and in_memory.device_bytes == 0


def test_pretrained_true_is_checked_once_before_any_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def missing(url: str) -> Path:
        asked.append(url)
        raise InputError("pretrained: they are not here")

    monkeypatch.setattr(pretrained, "weights_file", missing)
    points = checked(*(["model=monster", "model.pretrained=true", f"optim.lr={lr}"] for lr in (1, 2, 3)))
    batch = [settled(point, Choices(None, 1, "resident")) for point in points]
    with pytest.raises(InputError, match=r"^all 3 points: model\.pretrained: they are not here\nnothing was started$"):
        check_pretrained(batch)
    assert asked == [pretrained.ALEXNET_URL]
    check_pretrained([])


def test_the_hash_of_a_job_includes_the_choice_of_pretrained() -> None:
    (point,) = checked(["model=monster"])
    random, imagenet = (settled(point, Choices(choice, 1, "resident")) for choice in (False, True))
    assert random.config_hash != imagenet.config_hash
    (explicit,) = checked(["model=monster", "model.pretrained=true"])
    assert settled(explicit, Choices(None, 4, "resident")).config_hash == imagenet.config_hash


def test_the_hash_of_a_job_covers_what_decides_its_result() -> None:
    config = {"seed": 0, "optim": {"lr": 0.1}, "name": "a", "output_dir": "x", "resume": None, "dry_run": False}
    assert config_hash(config) == config_hash({**config, "name": "b", "output_dir": "y"})
    assert config_hash(config) == config_hash(dict(reversed(config.items())))
    assert config_hash(config) != config_hash({**config, "seed": 1})
    assert config_hash(config) != config_hash({**config, "optim": {"lr": 0.2}})


def test_a_job_keeps_its_hash_when_deepexp_gets_new_keys() -> None:
    first = (  # the keys that the hash had at first
        "accumulate augment batch_norm batch_size cache_frozen checkpoint clip_grad_norm compile cuda_graph data "
        "deterministic device drop_last dropout ema epochs early_stop evaluate_every freeze init label_smoothing "
        "log_every loss_reduction max_minutes max_steps model on_oom optim order precision schedule seed threads "
        "val_fraction"
    ).split()
    resolved = compose([]).resolved()
    assert config_hash(resolved) == config_hash({key: resolved[key] for key in first})
    for word in ("loss=focal", "class_weights=balanced", "init_from=x"):
        assert config_hash(compose([word]).resolved()) != config_hash(resolved)
    own, other = (compose(["data=image_folder", *words]).resolved() for words in ([], ["data.own_validation=false"]))
    before = {**own, "data": {key: value for key, value in own["data"].items() if key != "own_validation"}}
    assert config_hash(own) == config_hash(before) != config_hash(other)


def test_fixed_keys_do_not_vary() -> None:
    (point,) = checked(["seed=1", "data.root='/a b'", "epochs=2"], fixed={"epochs"})
    assert point.varying == {"seed": "1", "data.root": "/a b"}


def test_every_problem_is_reported_with_its_points() -> None:
    with pytest.raises(InputError) as caught:
        checked(["batch_size=10", "dropout=2"], ["batch_size=0", "dropout=2"], ["batch_size=5000", "dropout=2"])
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("all 3 points: dropout: 2")
    assert lines[1].startswith("batch_size=0,dropout=2: batch_size: 0")
    assert lines[-1] == "nothing was started"


@pytest.mark.parametrize("word", ["name=a", "output_dir=a"])
def test_name_and_output_dir_cannot_vary(word: str) -> None:
    with pytest.raises(InputError, match="cannot be different from job to job"):
        checked([word])


def test_a_search_needs_validation_data() -> None:
    with pytest.raises(InputError, match=r"val_fraction=0\.1.*objective=test_error_rate"):
        checked(["seed=0"], needs_validation=True)
    assert len(checked(["val_fraction=0.1"], needs_validation=True)) == 1


def test_keys_without_effect_on_results_change_the_hash_only_if_swept() -> None:
    usual, other, varying, seed = checked(
        ["seed=1"],
        ["seed=1", "data.workers=2", "data.mode=streamed", "log_every=9", "checkpoint.every_minutes=3"],
        ["seed=1", "data.workers=2"],
        ["seed=2"],
    )
    fixed = [replace(point, varying={}) for point in (usual, other, seed)]
    usual, other, seed, varying = (settled(point, Choices(None, 1, "resident")) for point in (*fixed, varying))
    assert usual.config_hash == other.config_hash
    assert usual.former_hashes[0] != other.former_hashes[0]
    assert len({usual.config_hash, varying.config_hash, seed.config_hash}) == 3
