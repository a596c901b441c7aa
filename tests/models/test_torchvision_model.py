import hashlib
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision import models

from deepexp.errors import InputError
from deepexp.models import pretrained as weights
from deepexp.models.init import initialise
from deepexp.models.torchvision_model import TorchvisionModel

SMALL = "squeezenet1_1"  # 1.2 million parameters; its last layer is a convolution, classifier.1


def build(name: str = SMALL, **arguments) -> TorchvisionModel:
    torch.manual_seed(0)
    return TorchvisionModel(**{"shape": (3, 32, 32), "classes": 10, "name": name, **arguments})


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Weights of 1000 classes in the cache, in place of torchvision's."""
    torch.manual_seed(5)
    network = models.get_model(SMALL)
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(network.state_dict(), cache / "new")
    digest = hashlib.sha256((cache / "new").read_bytes()).hexdigest()
    (cache / "new").rename(cache / f"{SMALL}-{digest[:8]}.pth")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    choice = models.get_model_weights(SMALL).DEFAULT
    monkeypatch.setattr(choice.value, "url", f"http://127.0.0.1:9/{SMALL}-{digest[:8]}.pth")
    return network.state_dict()


@pytest.mark.parametrize("name", [SMALL, "resnet18"])
def test_the_network_has_torchvisions_initial_weights(name: str):
    ours = build(name)
    torch.manual_seed(0)
    theirs = models.get_model(name, num_classes=10)
    x = torch.randn(2, 3, 32, 32)

    assert ours.state_dict().keys() == {f"network.{key}" for key in theirs.state_dict()}
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_heads_are_left_out(name: str):
    model = build(name, shape=(3, 80, 80))

    logits = model(torch.randn(2, 3, 80, 80))

    assert model.training
    assert isinstance(logits, torch.Tensor) and logits.shape == (2, 10)


@pytest.mark.parametrize("name", ["googlenet", "regnet_x_400mf", "swin_t", "vit_b_32"])
def test_networks_are_built_on_the_meta_device(name: str):
    with torch.device("meta"):
        model = TorchvisionModel(shape=(3, 224, 224), classes=7, name=name)

    assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}
    assert model(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, 7)


@pytest.fixture
def no_initial_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip drawing initial values: the meta device ignores them, and they take half of the time."""

    def keep(tensor: torch.Tensor, *_: object, **options: object) -> torch.Tensor:
        return tensor

    for name in dir(nn.init):
        if name.endswith("_") and not name.startswith("_"):
            monkeypatch.setattr(nn.init, name, keep)


@pytest.mark.slow
@pytest.mark.parametrize("name", models.list_models(module=models))
def test_every_classifier_is_built(no_initial_values: None, name: str):
    """Building calls the published network on two pictures; the last layer gets the right number of classes."""
    with torch.device("meta"):
        model = TorchvisionModel(shape=(3, 224, 224), classes=7, name=name)

    *_, last = model.parameters()
    assert last.shape[0] == 7


def test_every_published_file_has_its_digest_in_its_name():
    for name in models.list_models(module=models):
        url = models.get_model_weights(name).DEFAULT.url
        assert len(weights._digest_in(url.rsplit("/", 1)[-1])) >= 8


def test_dropout_sets_the_dropout_of_the_network():
    given = [m.p for m in build(dropout=0.25).modules() if isinstance(m, nn.Dropout)]
    default = [m.p for m in build().modules() if isinstance(m, nn.Dropout)]

    assert given == [0.25]
    assert default == [0.5]
    assert build("densenet121", dropout=0.1).network.features.denseblock1.denselayer1.drop_rate == 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": 18}, r"^name: 18 is no image classifier of torchvision"),
        ({"name": "resnt18"}, r"^name: 'resnt18' is no .*did you mean 'resnet18'"),
        ({"name": "fcn_resnet50"}, r"^name: 'fcn_resnet50' is no image classifier"),
        ({"name": "alexnet"}, r"^shape: pictures of 32x32 do not fit alexnet .*it takes 64, 96, .*data\.resize"),
        ({"name": "vit_b_32"}, r"^shape: pictures of 32x32 do not fit vit_b_32 .*it takes 224 "),
        ({"shape": (1, 32, 32)}, r"^shape: squeezenet1_1 takes 3 channels, and the pictures have 1"),
        (
            {"name": "resnet18", "dropout": 0.1},
            r"^dropout: 0.1 is not allowed, resnet18 has no dropout; set dropout=null",
        ),
        ({"dropout": 1.5}, r"^dropout: 1.5 must be"),
        ({"batch_norm": True}, r"^batch_norm: .*set batch_norm=null"),
        ({"batch_norm": False}, r"^batch_norm: .*set batch_norm=null"),
        ({"pretrained": "auto"}, r"^pretrained: 'auto' is neither true nor false"),
        ({"classes": 0}, r"^classes: 0 must be"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        build(**arguments)


def test_published_weights_go_everywhere_but_into_another_last_layer(published: dict[str, torch.Tensor]):
    model = build(pretrained=True)
    before = model.network.state_dict()["classifier.1.weight"].clone()
    state = torch.get_rng_state()
    model.load_pretrained()

    assert torch.equal(torch.get_rng_state(), state)
    for name, value in model.network.state_dict().items():
        expected = before if name == "classifier.1.weight" else published[name]
        assert name == "classifier.1.bias" or torch.equal(value, expected)
    assert model.pretrained_origin == "imagenet"
    assert "network.features.0" in model.pretrained_modules
    assert "network.classifier.1" not in model.pretrained_modules


def test_with_a_thousand_classes_the_last_layer_is_pretrained_too(published: dict[str, torch.Tensor]):
    model = build(pretrained=True, classes=1000)
    model.load_pretrained()

    torch.testing.assert_close(model.network.state_dict(), published, rtol=0, atol=0)
    assert "network.classifier.1" in model.pretrained_modules


def test_init_draws_the_last_layer_alone_where_the_others_are_pretrained():
    model = build("swin_t", pretrained=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    initialise(model, "kaiming")

    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"network.head.weight"}  # its bias is zero before and after


def test_without_pretrained_no_layer_counts_as_pretrained():
    model = build()
    model.load_pretrained()

    assert model.pretrained_origin is None
    assert model.pretrained_modules == ()


def test_weights_of_another_network_are_named(published: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch):
    model = build("mnasnet0_5", pretrained=True)
    other = models.get_model_weights(SMALL).DEFAULT.url
    monkeypatch.setattr(models.get_model_weights("mnasnet0_5").DEFAULT.value, "url", other)

    with pytest.raises(InputError, match=r"squeezenet1_1-.*\.pth does not fit mnasnet0_5"):
        model.load_pretrained()


def test_unavailable_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(models.get_model_weights(SMALL).DEFAULT.value, "url", "http://127.0.0.1:9/net-0123abcd.pth")

    with pytest.raises(InputError, match=r"net-0123abcd\.pth is missing, and downloading it from"):
        build(pretrained=True).load_pretrained()
    with pytest.raises(InputError, match=r"net-0123abcd\.pth is missing"):
        TorchvisionModel.fetch_pretrained(name=SMALL, pretrained=True, dropout=0.1)
    TorchvisionModel.fetch_pretrained(name=SMALL, pretrained=False, dropout=0.1)
