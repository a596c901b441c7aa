"""timm's networks: the same as timm makes them, for any picture that they can see, with published weights on demand."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from deepexp.errors import InputError
from deepexp.models.timm_model import TimmModel

from ..conftest import Run
from ..resumed import resume
from ..same_run import assert_same_run

SMALL = "test_resnet"  # timm's own for tests: 0.5 million parameters
SMALL_VIT = "test_vit"  # patches of 16×16


def build(name: str = SMALL, **arguments: Any) -> TimmModel:
    torch.manual_seed(0)
    return TimmModel(**{"shape": (3, 32, 32), "classes": 10, "name": name, **arguments})


@pytest.mark.parametrize(
    ("name", "shape", "arguments"),
    [
        (SMALL, (3, 32, 32), {}),
        (SMALL, (1, 40, 24), {"in_chans": 1}),
        (SMALL_VIT, (3, 32, 48), {"img_size": (32, 48)}),
        (SMALL_VIT, (1, 32, 32), {"img_size": (32, 32), "in_chans": 1, "drop_path_rate": 0.5}),
    ],
)
def test_the_network_is_the_one_that_timm_makes(
    name: str, shape: tuple[int, int, int], arguments: dict[str, Any]
) -> None:
    options = {key: value for key, value in arguments.items() if key == "drop_path_rate"}
    ours = build(name, shape=shape, **options)
    torch.manual_seed(0)
    theirs = timm.create_model(name, num_classes=10, **arguments)
    x = torch.randn(2, *shape)

    assert ours.state_dict().keys() == {f"network.{key}" for key in theirs.state_dict()}
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=0, atol=0)
    torch.manual_seed(1)
    trained = ours.train()(x)
    torch.manual_seed(1)
    torch.testing.assert_close(trained, theirs.train()(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    "name", ["resnet18", "convnext_atto", "vit_tiny_patch16_224", "mobilenetv3_small_050", "mixer_s16_224"]
)
def test_networks_are_built_on_the_meta_device(name: str) -> None:
    with torch.device("meta"):
        model = TimmModel(shape=(3, 64, 64), classes=7, name=name)

    assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}
    assert model(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 7)


@pytest.mark.parametrize(("name", "side"), [("pvt_v2_b0", 32), ("pit_ti_224", 40)])
def test_overlapping_patches_see_every_picture(name: str, side: int) -> None:
    """Theirs have 7 and 16 pixels, 4 and 8 apart."""
    with torch.device("meta"):
        TimmModel(shape=(3, side, side), classes=7, name=name)


def test_dropout_is_before_the_last_layer() -> None:
    assert build(dropout=0.25).network.drop_rate == 0.25
    assert [m.p for m in build(SMALL_VIT, dropout=0.25).modules() if isinstance(m, nn.Dropout)].count(0.25) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": 18}, r"^name: 18 is no image classifier of timm"),
        (
            {"name": "resnt18"},
            r"^name: 'resnt18' is no .*did you mean 'resnet18'\?\); timm.list_models\(\) names all 1,",
        ),
        ({"name": "hf_hub:timm/resnet18"}, r"^name: 'hf_hub:timm/resnet18' is no image classifier"),
        (
            {"name": "resnet18.a1_in1"},
            r"^name: 'resnet18.a1_in1' is not there \(did you mean 'a1_in1k'\?\); weights of",
        ),
        (
            {"name": SMALL_VIT, "shape": (3, 40, 32)},
            "^shape: pictures of 40x32 are no whole number of the 16x16 patches",
        ),
        (
            {"name": "convnext_atto", "shape": (3, 8, 8)},
            r"^shape: pictures of 8x8 do not fit .*takes 32, .*data\.resize",
        ),
        ({"drop_pat": 0.1}, "^test_resnet cannot be made for pictures of 3x32x32: TypeError: .*'drop_pat'"),
        ({"name": "halonet26t"}, r"^shape: pictures of 32x32 do not fit halonet26t \(AssertionError\)$"),
        ({"in_chans": 1}, "^in_chans: is not allowed, as it follows from the pictures; leave it out$"),
        ({"num_classes": 3}, "^num_classes: is not allowed, as it follows from the data; leave it out$"),
        ({"dropout": 0.2, "drop_rate": 0.5}, "^drop_rate: is not allowed beside dropout; leave one of them out$"),
        ({"features_only": True}, "^features_only: is not allowed, as it leaves out the last layer"),
        ({"dropout": 1.5}, r"^dropout: 1.5 must be"),
        ({"batch_norm": True}, r"^batch_norm: .*set batch_norm=null"),
        ({"pretrained": "auto"}, r"^pretrained: 'auto' is neither true nor false"),
        (
            {"name": "botnet50ts_256", "pretrained": True},
            "^pretrained: there are no published weights of botnet50ts_256;",
        ),
        ({"classes": 0}, r"^classes: 0 must be"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**arguments)


def test_without_timm_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"^timm is not installed; pip install timm, or take another model$"):
        build()


LOADED = """
    import sys, safetensors.torch, torch
    from deepexp.models.timm_model import TimmModel
    published = safetensors.torch.load_file(sys.argv[1])
    for classes, channels, name in ((10, 3, "test_resnet"), (1000, 3, "test_resnet.r160_in1k"), (10, 1, "test_resnet")):
        torch.manual_seed(0)
        TimmModel.fetch_pretrained(name=name, pretrained=True, dropout=None)
        model = TimmModel(shape=(channels, 32, 32), classes=classes, name=name, pretrained=True)
        drawn = {key: value.clone() for key, value in model.network.state_dict().items()}
        state = torch.get_rng_state()
        model.load_pretrained()
        assert torch.equal(torch.get_rng_state(), state)
        for key, value in model.network.state_dict().items():
            if channels == 1 and key == "conv1.0.weight":
                torch.testing.assert_close(value, published[key].sum(1, keepdim=True))
            else:
                assert torch.equal(value, (drawn if classes == 10 and key.startswith("fc.") else published)[key]), key
        assert model.pretrained_origin == "timm/test_resnet.r160_in1k"
        assert "network.layer1.0.conv1" in model.pretrained_modules
        assert ("network.fc" in model.pretrained_modules) is (classes == 1000)
"""


def test_published_weights_go_everywhere_but_into_another_last_layer(tmp_path: Path) -> None:
    """They are in the cache of Hugging Face's hub, as if they had been downloaded."""
    torch.manual_seed(5)
    repository = tmp_path / "hub" / "models--timm--test_resnet.r160_in1k"
    snapshot = repository / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    weights = timm.create_model(SMALL).state_dict()
    weights |= {key: torch.rand_like(value) for key, value in weights.items() if value.is_floating_point()}
    safetensors.torch.save_file(weights, snapshot / "model.safetensors")
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    words = [sys.executable, "-c", textwrap.dedent(LOADED), str(snapshot / "model.safetensors")]
    done = subprocess.run(words, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_weights_that_cannot_be_had_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def create_model(*_: object, **__: object) -> None:
        raise OSError("no network\nand more")

    monkeypatch.setattr(timm, "create_model", create_model)
    told = "^pretrained: the weights of timm's test_resnet cannot be had \\(OSError: no network\\); .* init_from=FILE$"
    with pytest.raises(InputError, match=told):
        TimmModel.fetch_pretrained(name=SMALL, pretrained=True)
    TimmModel.fetch_pretrained(name=SMALL, pretrained=False)


@pytest.mark.parametrize("name", [SMALL, SMALL_VIT])
def test_a_run_learns_is_resumed_exactly_and_records_the_version(run: Run, name: str) -> None:
    words = ["model=timm", f"model.name={name}", "data=digits", "data.resize=32", "data.subset=200", "batch_size=20"]
    words += ["dropout=0.1", "optim=adam", "epochs=3"]
    whole = run(words)
    assert whole.metrics[-1]["train_loss"] < 0.9 * whole.metrics[0]["train_loss"]
    part = run([*words, "max_steps=13"])
    assert_same_run(resume(part, "max_steps=null").directory, whole.directory)
    assert json.loads((part.directory / "provenance.json").read_text())["code"] == {"timm": timm.__version__}
