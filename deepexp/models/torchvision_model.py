"""Any image classifier of `torchvision.models` by its name, with its published weights where they are wanted."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from deepexp.errors import InputError
from deepexp.models import pretrained as weights
from deepexp.models.blocks import Shape, check_dropout, check_positive
from deepexp.models.published import check_choices, check_picture, common_modules, on_default_device
from deepexp.text.suggest import did_you_mean

_IMAGENET_CLASSES = 1000
_DROPOUT_ARGUMENTS = ("dropout", "drop_rate")  # the second is DenseNet's
_WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")


class TorchvisionModel(nn.Module):
    """The network of this name, its last layer made for `classes`.

    `pretrained`: True takes torchvision's default weights, all but a last layer of another size. `dropout`: None
    leaves the network's own default; refused where it has no dropout. `batch_norm` must be None, as each of these
    networks is published with or without it. The auxiliary heads of GoogLeNet and Inception v3 are left out.
    """

    def __init__(
        self,
        *,
        shape: Shape,
        classes: int,
        name: str = "resnet18",
        pretrained: bool = False,
        dropout: float | None = None,
        batch_norm: bool | None = None,
    ) -> None:
        super().__init__()
        check_positive(classes=classes)
        _check_name(name)
        check_choices(name, "torchvision", pretrained=pretrained, batch_norm=batch_norm)
        if shape[0] != 3:
            raise ValueError(f"shape: {name} takes 3 channels, and the pictures have {shape[0]}")
        self.name = name
        self.pretrained = pretrained

        options: dict[str, Any] = {}
        if name in _WITH_AUXILIARY_HEADS:  # `transform_input`: the normalisation of their published weights
            options = {"aux_logits": False, "init_weights": True, "transform_input": pretrained}
        with torch.device("meta"):
            published = _build(name, _IMAGENET_CLASSES, **options)
        if dropout is not None:
            options |= _dropout_option(name, published, dropout)
        check_picture(name, published, shape)
        self.network = _build(name, classes, **options)
        self.pretrained_modules = common_modules(self.network, published) if pretrained else ()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    @property
    def pretrained_origin(self) -> str | None:
        """`imagenet`, or None where its weights were not asked for."""
        return "imagenet" if self.pretrained else None

    @staticmethod
    def fetch_pretrained(*, name: str, pretrained: bool = False, **_: Any) -> None:
        """Make sure that the published weights are here; `InputError` if they are not available.

        Called with the arguments that a model will be made of.
        """
        if pretrained:
            weights.weights_file(models.get_model_weights(name).DEFAULT.url)

    def load_pretrained(self) -> None:
        """Load the published weights into every layer of the same shape; `InputError` if they are not available."""
        if not self.pretrained:
            return
        choice = models.get_model_weights(self.name).DEFAULT
        path = weights.weights_file(choice.url)  # torchvision finds it in the cache, and does not check it
        with torch.random.fork_rng(devices=[]):  # torchvision draws weights before it loads these
            try:
                published = models.get_model(self.name, weights=choice, progress=False).state_dict()
            except Exception as error:  # a damaged file makes torch.load raise almost anything
                raise InputError(f"pretrained: {path} does not fit {self.name} ({error})") from error
        own = self.network.state_dict()
        fitting = {key: value for key, value in published.items() if own[key].shape == value.shape}
        self.network.load_state_dict(own | fitting)


def _check_name(name: str) -> None:
    names = models.list_models(module=models)
    if name not in names:
        raise ValueError(
            f"name: {name!r} is no image classifier of torchvision{did_you_mean(str(name), names)}; "
            f"the {len(names)} that there are: https://docs.pytorch.org/vision/stable/models.html#classification"
        )


def _build(name: str, classes: int, **options: Any) -> nn.Module:
    return on_default_device(lambda: models.get_model(name, weights=None, num_classes=classes, **options))


def _dropout_option(name: str, network: nn.Module, dropout: float) -> dict[str, float]:
    """The argument by which this network takes dropout; `ValueError` where there is none."""
    check_dropout(dropout)
    arguments = inspect.signature(type(network)).parameters
    for argument in _DROPOUT_ARGUMENTS:
        if argument in arguments:
            return {argument: dropout}
    raise ValueError(f"dropout: {dropout} is not allowed, {name} has no dropout; set dropout=null")
