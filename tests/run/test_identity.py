"""A checkpoint is refused with another config than it was trained with, and other code is reported."""

import contextlib
import hashlib
import importlib
import importlib.metadata
import json
import shutil
import sys
import zipfile

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from deepexp import checkpoint, schema
from deepexp.config import catalogue
from deepexp.config.compose import compose
from deepexp.disk import yaml_file
from deepexp.errors import InputError
from deepexp.inference.saved_model import load
from deepexp.report import runs, variation
from deepexp.run import describe
from deepexp.run.identity import Identity
from deepexp.schema import Problems
from deepexp.user_code import own_code
from deepexp.user_code.targets import find

from ..resumed import resume

SMALL = ["epochs=1", "data.subset=60", "data.resize=22", "batch_size=20"]

MODEL = "_target_: mine.Net\ninput: {channels: null, height: null, width: null}\n"
NET = """
from torch import nn
from widths import WIDTH

class Net(nn.Sequential):
    def __init__(self, shape, classes):
        inputs = shape[0] * shape[1] * shape[2]
        super().__init__(nn.Flatten(), nn.Linear(inputs, WIDTH), nn.ReLU(), nn.Linear(WIDTH, classes))
"""


def edit(result, **changes):
    """Change the saved config by hand."""
    path = result.directory / ".hydra" / "config.yaml"
    config = OmegaConf.create(yaml.safe_load(path.read_text()))
    for key, value in changes.items():
        OmegaConf.update(config, key.replace("__", "."), value)
    path.write_text(OmegaConf.to_yaml(config))


def provenance(result):
    return json.loads((result.directory / "provenance.json").read_text())


@pytest.mark.parametrize("preset", [None, *(option.name for option in catalogue.options("experiment"))])
def test_a_saved_config_has_the_same_identity_when_read(preset):
    """Otherwise no run could be resumed."""
    composed = compose([f"experiment={preset}"] if preset else [])
    config = typed(OmegaConf.to_container(composed.config, resolve=True))
    saved = yaml.load(describe.hydra_files(composed, config).config, yaml_file.SAFE_LOADER)
    kept = Identity.of(config)
    assert kept.config["seed"] == str(config.seed) and kept.config["optim._target_"]
    assert Identity.of(typed(saved)) == kept


def test_a_saved_config_edited_by_hand_is_refused(run):
    result = run(SMALL)
    edit(result, optim__lr=0.2, seed=7)
    kept = {path: path.read_bytes() for path in result.directory.rglob("*") if path.is_file()}
    with pytest.raises(InputError) as caught:
        resume(result, "epochs=2")
    assert "last.pt: was trained with another config" in str(caught.value)
    assert "optim.lr is 0.2 and was 0.1, seed is 7 and was 0;" in str(caught.value)
    with pytest.raises(InputError, match=r"optim\.lr is 0\.2 and was 0\.1"):
        load(result.directory)
    assert {path: path.read_bytes() for path in kept} == kept
    edit(result, optim__lr=0.1, seed=0)
    assert resume(result, "epochs=2").epochs == 2


def test_an_argument_changed_by_hand_is_named(run):
    result = run([*SMALL, "optim=momentum"])
    edit(result, optim__weight_decay=0.5)
    with pytest.raises(InputError, match=r"optim\.weight_decay is 0\.5 and was 0"):
        resume(result, "epochs=2")


def test_keys_that_may_change_may_be_changed_by_hand(run):
    result = run(SMALL)
    edit(result, epochs=2, log_every=1, threads="auto", output_dir="elsewhere", checkpoint__every_minutes=1)
    edit(result, name="other")
    (result.directory / "status.json").write_text(json.dumps({"format": 1, "status": "failed"}))
    assert resume(result).epochs == 2


@pytest.mark.parametrize("words", [["optim=adam"], ["seed=1"], ["init=xavier", "seed=2", "order=sequential"]])
def test_the_checkpoint_of_another_run_is_refused(run, words):
    """Also one of the same model, whose weights would fit."""
    mine, other = run(SMALL), run([*SMALL, *words])
    shutil.copy(other.directory / "checkpoints" / "last.pt", mine.directory / "checkpoints" / "last.pt")
    with pytest.raises(InputError, match=r"last\.pt: was trained with another config than the one in \.hydra/"):
        resume(mine, "epochs=2")


def test_only_the_first_of_many_differences_are_listed(run):
    result = run(SMALL)
    edit(result, seed=1, dropout=0.1, batch_size=10, order="sequential", init="xavier", ema=0.5, drop_last=True)
    with pytest.raises(InputError, match=r"(\w+ is \S+ and was \S+, ){5}and 2 more; put back"):
        resume(result, "epochs=2")


def typed(config):
    problems = Problems()
    result = schema.typed(config, problems)
    problems.raise_any()
    return result


def rewrite(result, change):
    path = result.directory / "checkpoints" / "last.pt"
    content = checkpoint.load(path)
    change(content)
    checkpoint.save(path, content)


def test_a_checkpoint_without_an_identity_can_be_resumed(run):
    result = run(SMALL)
    rewrite(result, lambda content: content.pop("identity"))
    assert resume(result, "epochs=2").epochs == 2
    assert checkpoint.load(result.directory / "checkpoints" / "last.pt")["identity"]["config"]["optim.lr"] == "0.1"


def test_a_config_key_added_since_is_no_difference(run):
    result = run(SMALL)
    rewrite(result, lambda content: content["identity"]["config"].pop("label_smoothing"))
    assert resume(result, "epochs=2").epochs == 2


def test_a_run_from_before_there_was_a_choice_of_losses_goes_on_and_can_be_read(run, tmp_path):
    whole = run([*SMALL, "epochs=2"], folder="whole")
    result = run(SMALL)
    rewrite(result, lambda content: content["identity"]["config"].pop("loss._target_"))
    for name, node in (("config", lambda content: content), ("hydra", lambda content: content["runtime"]["choices"])):
        path = result.directory / ".hydra" / f"{name}.yaml"
        content = yaml.safe_load(path.read_text())
        node(content).pop("loss")
        path.write_text(yaml.safe_dump(content))
    (before,) = runs.read([result.directory]).runs
    (now,) = runs.read([whole.directory]).runs
    assert before.choices == now.choices
    assert variation.varying([before, now]) == ["epochs"]
    resumed = resume(result, "epochs=2")
    assert resumed.metrics[-1]["test_loss"] == whole.metrics[-1]["test_loss"]


@pytest.mark.parametrize("rubbish", ["text", {}, {"config": {"seed": 1}, "code": {}}, {"config": {}, "code": []}])
def test_a_damaged_identity_is_refused(run, rubbish):
    result = run(SMALL)
    rewrite(result, lambda content: content.update(identity=rubbish))
    with pytest.raises(InputError, match=r"last\.pt: is damaged \(what it was trained with cannot be read"):
        resume(result, "epochs=2")


@pytest.fixture
def forget_own_modules(tmp_path, monkeypatch):
    """A folder with a user's model and a module for its width; gives a function that makes Python forget both."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text(MODEL)
    (tmp_path / "mine.py").write_text(NET)
    (tmp_path / "widths.py").write_text("WIDTH = 5\ndef unused(): ...\n")

    def forget():
        for name in ("mine", "widths"):
            sys.modules.pop(name, None)

    yield forget
    forget()


def test_changed_own_code_is_reported_and_recorded(run, forget_own_modules, tmp_path, caplog):
    (tmp_path / "mine.py").write_text(NET.replace("from widths import WIDTH", "import widths\nWIDTH = widths.WIDTH"))
    result = run([*SMALL, "model=mine"])
    assert list(provenance(result)["code"]) == ["mine", "widths"]
    forget_own_modules()
    resume(result, "epochs=2")
    assert "other code" not in caplog.text and provenance(result)["resumed"][-1]["differs"] == []

    forget_own_modules()
    (tmp_path / "widths.py").write_text("WIDTH = 5  # units\n")
    load(result.directory)
    assert "last.pt: was trained with other code: widths has changed since then" in caplog.text
    caplog.clear()
    resume(result, "epochs=3")
    assert "checkpoints: was trained with other code: widths has changed since then" in caplog.text
    last = provenance(result)["resumed"][-1]
    assert last["differs"] == ["widths"]
    assert last["code"]["widths"] != provenance(result)["code"]["widths"]
    assert last["code"]["mine"] == provenance(result)["code"]["mine"]

    forget_own_modules()
    caplog.clear()
    resume(result, "epochs=4")  # its checkpoint was trained with the new code
    assert "other code" not in caplog.text


def test_a_module_is_found_by_a_function_imported_from_it(run, forget_own_modules, tmp_path):
    (tmp_path / "widths.py").write_text("def width(): return 5\n")
    (tmp_path / "mine.py").write_text(NET.replace("import WIDTH", "import width\nWIDTH = width()"))
    assert list(provenance(run([*SMALL, "model=mine"]))["code"]) == ["mine", "widths"]


@contextlib.contextmanager
def importable(place):
    """Put a folder first on `sys.path`; `syspath_prepend` would restore folders that deepexp added in earlier tests."""
    sys.path.insert(0, str(place))
    try:
        yield
    finally:
        sys.path.remove(str(place))


def code():
    """What a run of model=mine would record."""
    config = typed(OmegaConf.to_container(compose(["model=mine"]).config, resolve=True))
    find(config.model.component.target)
    return Identity.of(config).code


@pytest.mark.parametrize(
    ("line", "module"),
    [
        ("from widths import WIDTH", "widths"),
        ("import torch; from widths import WIDTH", "widths"),
        ("import folder.widths; WIDTH = folder.widths.WIDTH", "folder.widths"),
        ("import importlib; WIDTH = (widths := importlib.import_module('widths')).WIDTH", "widths"),
    ],
)
def test_a_module_is_found_by_a_number_imported_from_it(forget_own_modules, tmp_path, line, module):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "widths.py").write_text("WIDTH = 5\n")
    (tmp_path / "mine.py").write_text(NET.replace("from widths import WIDTH", line))
    assert sorted(code()) == sorted(["mine", module])


def test_a_module_is_found_by_a_relative_import(forget_own_modules, tmp_path):
    (tmp_path / "conf" / "model" / "mine.yaml").write_text(MODEL.replace("mine.Net", "nets.mine.Net"))
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "widths.py").write_text("WIDTH = 5\n")
    source = NET.replace("widths", ".widths")
    (tmp_path / "nets" / "mine.py").write_text(f'"""Taken\nfrom ... elsewhere.\n"""\n{source}')
    assert list(code()) == ["nets.mine", "nets.widths"]


def test_an_attribute_of_a_model_that_names_no_library_does_no_harm(forget_own_modules, tmp_path):
    (tmp_path / "mine.py").write_text(
        f"{NET.replace('from widths import WIDTH', 'WIDTH = 5')}    package = 'nowhere'\n"
    )
    assert list(code()) == ["mine"]


def test_targets_in_arguments_count_as_own_code(forget_own_modules, tmp_path):
    (tmp_path / "conf" / "model" / "mine.yaml").write_text(f"{MODEL}layers: [{{of: {{_target_: widths.unused}}}}]\n")
    (tmp_path / "mine.py").write_text(NET.replace("from widths import WIDTH", "WIDTH = 5"))
    find("widths.unused")
    assert list(code()) == ["mine", "widths"]


@pytest.mark.parametrize(
    "line",
    [
        "from torch import ops",  # its `__file__` does not exist
        "import sys; sys.modules['nowhere'] = None; Net.__init__.__module__ = 'nowhere'",
        "from unittest.mock import MagicMock; from types import ModuleType; mock = MagicMock(spec=ModuleType)",
        "class Proxy: __class__ = property(lambda self: 1 / 0)\nproxy = Proxy()",
        "from types import ModuleType\nclass Lazy(ModuleType):\n def __getattr__(self, _): 1 / 0\nlazy = Lazy('x')",
    ],
)
def test_strange_objects_in_a_module_do_no_harm(forget_own_modules, tmp_path, line):
    (tmp_path / "mine.py").write_text(f"{NET}\n{line}\n")
    assert list(code()) == ["mine", "widths"]


def test_a_torch_outside_site_packages_does_not_count_as_own_code(forget_own_modules, monkeypatch):
    """For example a development build, with 700 modules."""
    monkeypatch.setattr(own_code, "is_the_users", lambda file: file.suffix == ".py")
    assert list(code()) == ["mine", "widths"]


def write_zip(path, width):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inside/__init__.py", "# a package\n" * width)
        archive.writestr("inside/zipped.py", f"WIDTH = {width}\n")


def test_modules_in_a_zip_have_digests_of_its_present_content(forget_own_modules, tmp_path):
    path = tmp_path / "archive.zip"
    write_zip(path, 5)
    (tmp_path / "mine.py").write_text(f"from inside import zipped\n{NET}")
    with importable(path):
        first = code()
        assert list(first) == ["inside", "inside.zipped", "mine", "widths"]
        assert first["inside.zipped"] == hashlib.sha256(b"WIDTH = 5\n").hexdigest()
        write_zip(path, 123)
        assert code()["inside.zipped"] == hashlib.sha256(b"WIDTH = 123\n").hexdigest()
        path.write_bytes(b"no zip any longer")
        assert list(code()) == ["mine", "widths"]
        path.unlink()
        assert list(code()) == ["mine", "widths"]


def test_modules_that_cannot_be_read_are_left_out(forget_own_modules, tmp_path):
    find("mine.Net")
    (tmp_path / "widths.py").unlink()
    assert list(code()) == ["mine"]
    (tmp_path / "mine.py").unlink()
    assert list(code()) == []


def test_a_changed_module_must_be_reloaded_before_a_run(run, forget_own_modules, tmp_path):
    """Also one that is only imported from: else the run would record the digest of code that it did not use."""
    first = run([*SMALL, "model=mine"])
    (tmp_path / "widths.py").write_text("WIDTH = 7  # units\n")
    with pytest.raises(InputError, match=r"^widths\.py has changed since it was imported; .*reload\(.*'widths'"):
        run([*SMALL, "model=mine"])
    importlib.reload(sys.modules["widths"])
    importlib.reload(sys.modules["mine"])
    second = run([*SMALL, "model=mine"])
    assert second.model[1].out_features == 7
    assert provenance(first)["code"]["widths"] != provenance(second)["code"]["widths"]


def test_modules_imported_for_another_run_are_no_difference(run, forget_own_modules, tmp_path, caplog):
    (tmp_path / "conf" / "model" / "mine.yaml").write_text(MODEL.replace("mine.Net", "models.mine.Net"))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").touch()
    (tmp_path / "models" / "mine.py").write_text(f"import models\n{NET}")
    (tmp_path / "models" / "other.py").write_text("def make(): ...\n")
    result = run([*SMALL, "model=mine"])
    find("models.other.make")
    assert "models.other" in code()
    load(result.directory)
    assert "other code" not in caplog.text


def test_an_installed_package_counts_by_its_version(run, tmp_path, monkeypatch, caplog):
    """Unlike those of torch and others, its version is not among those that every run records."""
    site = tmp_path / "site-packages"
    (site / "zoo").mkdir(parents=True)
    (site / "zoo" / "__init__.py").write_text(NET.replace("from widths import WIDTH", "WIDTH = 5"))
    (site / "zoo-1.5.dist-info").mkdir()
    (site / "zoo-1.5.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo\nVersion: 1.5\n")
    (site / "zoo-1.5.dist-info" / "top_level.txt").write_text("zoo\n")
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text(MODEL.replace("mine.Net", "zoo.Net"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(site))
    result = run([*SMALL, "model=mine"])
    assert provenance(result)["code"] == {"zoo": "1.5"}
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.6" if name == "zoo" else "0")
    resume(result, "epochs=2")
    assert "zoo has changed since then" in caplog.text


@pytest.mark.parametrize("place", ["zoo/__init__.py", "zoo.py"])
def test_the_distribution_of_a_package_is_found_in_its_record(forget_own_modules, tmp_path, monkeypatch, place):
    """`packages_distributions` would find it too, but takes a second."""
    site = tmp_path / "site-packages"
    for name, listed in (("keepers", place), ("zoology", "zoology/zoo/__init__.py\nzoo_of/__init__.py")):
        (site / f"{name}-1.5.dist-info").mkdir(parents=True)
        (site / f"{name}-1.5.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        (site / f"{name}-1.5.dist-info" / "RECORD").write_text(f"{name}-1.5.dist-info/METADATA,,\n{listed},,\n")
    (site / place).parent.mkdir(exist_ok=True)
    (site / place).write_text(NET)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text(MODEL.replace("mine.Net", "zoo.Net"))
    monkeypatch.delattr(importlib.metadata, "packages_distributions")
    with importable(site):
        assert list(code()) == ["keepers"]


def test_parts_of_deepexp_and_torch_have_no_digest():
    config = typed(OmegaConf.to_container(compose([]).config, resolve=True))
    find(config.model.component.target)
    assert torch.__version__ and Identity.of(config).code == {}
