"""Any image classifier of timm (PyTorch Image Models) by its name, with its published weights where they are wanted.

timm is imported when such a model is made: deepexp does not need it otherwise.
"""

import functools
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from deepexp.errors import InputError, in_short
from deepexp.models.blocks import Shape, check_dropout, check_positive
from deepexp.models.published import check_choices, check_picture, common_modules, on_default_device
from deepexp.text.suggest import did_you_mean


class TimmModel(nn.Module):
    """The network of this name, made for these pictures and so many classes.

    `name`: one of `timm.list_models`; a tag behind a dot tells published weights apart (`resnet18.a1_in1k`).
    `pretrained`: True takes these, all but a last layer for other classes; for pictures of other channels or another
    size timm adapts the first layer and the embeddings of positions. `dropout`: before the last layer; None leaves the
    network's own default. `batch_norm` must be None, as each network defines it itself. `options`: further arguments
    of `timm.create_model`, as `drop_path_rate`, except for those that follow from the others or give no logits.
    """

    package = "timm"

    def __init__(
        self,
        *,
        shape: Shape,
        classes: int,
        name: str = "resnet18",
        pretrained: bool = False,
        dropout: float | None = None,
        batch_norm: bool | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        check_positive(classes=classes)
        published = _config(name)
        check_choices(name, "timm", pretrained=pretrained, batch_norm=batch_norm)
        if pretrained and not published.has_weights:
            raise ValueError(f"pretrained: there are no published weights of {name}; set model.pretrained=false")
        _check_options(options, dropout)
        if dropout is not None:
            check_dropout(dropout)
            options["drop_rate"] = dropout
        if published.fixed_input_size:
            options.setdefault("img_size", shape[1:])
        self.name = name
        self.pretrained = pretrained
        self._as_published = {**options, "in_chans": shape[0], "num_classes": published.num_classes}

        with torch.device("meta"):
            pattern = _made(name, shape, **self._as_published)
        _check_patches(name, pattern, shape)
        check_picture(name, pattern, shape)
        self.network = _made(name, shape, **{**self._as_published, "num_classes": classes})
        self.pretrained_modules = common_modules(self.network, pattern) if pretrained else ()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    @property
    def pretrained_origin(self) -> str | None:
        """The full name of timm's weights, or None where they were not asked for."""
        published = _config(self.name)
        return f"timm/{published.architecture}.{published.tag}" if self.pretrained else None

    @staticmethod
    def fetch_pretrained(*, name: str, pretrained: bool = False, **_: Any) -> None:
        """Make sure that the published weights are here; `InputError` if they are not available.

        Called with the arguments that a model will be made of.
        """
        if pretrained:
            _published_weights(name)

    def load_pretrained(self) -> None:
        """Load the published weights into every layer of the same shape; `InputError` if they are not available."""
        if self.pretrained:
            own = self.network.state_dict()
            published = _published_weights(self.name, **self._as_published)
            fitting = {key: value for key, value in published.items() if key in own and own[key].shape == value.shape}
            self.network.load_state_dict(own | fitting)


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError:
        raise ValueError("timm is not installed; pip install timm, or take another model") from None
    return timm


@functools.cache
def _names() -> list[str]:
    names: list[str] = _timm().list_models()
    return names


def _config(name: str) -> Any:
    """What timm says about the published weights of this name; `ValueError` if there is no such network."""
    timm, names = _timm(), _names()
    network, _, tag = str(name).partition(".")
    if not isinstance(name, str) or network not in names:
        raise ValueError(
            f"name: {name!r} is no image classifier of timm{did_you_mean(network, names)}; "
            f"timm.list_models() names all {len(names):,}"
        )
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{network}.*")]
    if tag and tag not in tags:
        raise ValueError(
            f"name: {name!r} is not there{did_you_mean(tag, tags)}; "
            f"weights of {network} are {', '.join(tags) or 'none'}"
        )
    return timm.get_pretrained_cfg(name)


_GIVEN = {"in_chans": "the pictures", "num_classes": "the data"}
"""Arguments of `timm.create_model` → what they follow from."""


def _check_options(options: Mapping[str, Any], dropout: float | None) -> None:
    """`ValueError` for arguments of timm's that others would override, or that make something else of a network."""
    for key in options.keys() & _GIVEN.keys():
        raise ValueError(f"{key}: is not allowed, as it follows from {_GIVEN[key]}; leave it out")
    if dropout is not None and "drop_rate" in options:
        raise ValueError("drop_rate: is not allowed beside dropout; leave one of them out")
    if options.get("features_only"):
        raise ValueError("features_only: is not allowed, as it leaves out the last layer; leave it out")


def _made(name: str, shape: Shape, **arguments: Any) -> nn.Module:
    """The network without published weights; `ValueError` if it cannot be made."""
    try:
        return on_default_device(lambda: _timm().create_model(name, **arguments))
    except Exception as error:  # networks refuse arguments in ways of their own
        size = "x".join(map(str, shape))
        raise ValueError(f"{name} cannot be made for pictures of {size}: {in_short(error)}") from error


def _check_patches(name: str, network: nn.Module, shape: Shape) -> None:
    """`ValueError` for pictures that are no whole number of patches, unless these overlap: what is over is not seen."""
    embedding = getattr(network, "patch_embed", None)
    patch = getattr(embedding, "patch_size", None)
    if not isinstance(embedding, nn.Module) or not isinstance(patch, tuple):
        return
    lie_apart = any(isinstance(module, nn.Conv2d) and module.stride == patch for module in embedding.modules())
    if lie_apart and any(side % size for side, size in zip(shape[1:], patch, strict=True)):
        raise ValueError(
            f"shape: pictures of {shape[1]}x{shape[2]} are no whole number of the {patch[0]}x{patch[1]} patches that "
            f"{name} sees; give data.resize a multiple of {patch[0]}"
        )


def _published_weights(name: str, **arguments: Any) -> dict[str, Tensor]:
    """The state dict of the network with its published weights, downloaded if they are missing."""
    with torch.random.fork_rng(devices=[]):  # the network's own are drawn first
        try:
            network: nn.Module = _timm().create_model(name, pretrained=True, **arguments)
        except Exception as error:  # the download and the reading of files fail in many ways
            raise InputError(
                f"pretrained: the weights of timm's {name} cannot be had ({in_short(error)}); "
                "with a file of them, leave model.pretrained=false and give init_from=FILE"
            ) from error
    return network.state_dict()
