"""The YAML of each data set and augmentation lists all arguments of its target, and works unchanged."""

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from deepexp.paths import CONF_DIR

FILES = sorted([*(CONF_DIR / "data").glob("*.yaml"), *(CONF_DIR / "augment").glob("*.yaml")])


def target_and_arguments(file: Path) -> tuple[Any, dict[str, Any]]:
    arguments = yaml.safe_load(file.read_text(encoding="utf-8"))
    module, _, name = arguments.pop("_target_").rpartition(".")
    return getattr(importlib.import_module(module), name), arguments


def test_every_data_set_and_augmentation_has_a_yaml() -> None:
    names = {f"{file.parent.name}/{file.stem}" for file in FILES}
    sets = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "image_folder", "image_table", "synthetic")
    augmentations = ("none", "crop_flip", "cutout", "mixup", "cutmix")
    augmentations += ("crop_flip_cutout", "crop_flip_mixup", "crop_flip_cutmix")
    assert names >= {f"data/{name}" for name in sets} | {f"augment/{name}" for name in augmentations}


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_yaml_lists_every_argument_and_works(file: Path, tmp_path: Path, picture_root: Path) -> None:
    first = file.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ") and len(first) < 100  # what `deepexp list` shows
    target, arguments = target_and_arguments(file)
    parameters = set(inspect.signature(target).parameters)
    assert set(arguments) == parameters - {"root"}
    if "root" in parameters:
        arguments["root"] = picture_root if file.stem.startswith("image_") else tmp_path
        rows = [f"{path.relative_to(picture_root)},{path.parent.name}" for path in picture_root.glob("train/*/*")]
        (picture_root / "labels.csv").write_text("\n".join(["picture,class", *rows]))
    made = target(**arguments)
    if file.parent.name == "data":
        assert made.info().train_samples > 0
