"""Monster, put together from a trained network's first layer and layers of its own; frozen for a while, and then not.

The model is `deepexp/models/monster.py`; here is what it is made of, and what freezing does.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepexp.errors import InputError
from deepexp.lecture.demonstration import Demonstration, Picture, Scale, figures, table
from deepexp.models import pretrained
from deepexp.models.monster import Monster
from deepexp.models.size import parameter_count
from deepexp.optim.freeze import FreezePlan
from deepexp.pages import plotting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EPOCHS = 2


def demonstrate(
    *, scale: Scale = "standard", pretrained: bool | str | None = None, lr: float = 0.01, seed: int = 0
) -> Demonstration:
    """Build Monster, train it for two epochs of a few batches each, and see which layers move.

    `pretrained`: true for ImageNet's weights (downloaded if need be), false for random ones, a path for others; by
    default ImageNet's if they are here.
    """
    model = build(_choice(pretrained), blocks={"quick": 2, "standard": 16}[scale], seed=seed)
    filters = model.features[0].weight.detach().clone()  # type: ignore[operator]
    # ── Freezing means that a parameter asks for no gradient: the backward pass ends there, and the optimizer has
    # ── nothing to step by. The layer's weights stay the same to the last bit, while the layers above learn to read
    # ── them. When those give sensible gradients, the borrowed layer may move too without being spoilt.
    rules = [{"pattern": "features.*", "share": 0.5}]
    moved = train(model, FreezePlan(model, rules, EPOCHS), lr, seed)
    rows = [(part, f"{parameter_count(getattr(model, part)):,}", *(figures(m[part]) for m in moved)) for part in PARTS]
    rows.append(("all", f"{parameter_count(model):,}", "", ""))
    if not moved[1]["features"] > 0:  # also if it is NaN
        raise ValueError(f"lr: {lr:g} is not allowed; the layers above are spoilt by it, or do not move at all")
    origin = model.pretrained_origin
    why = ", as asked for" if pretrained is False else ": ImageNet's weights are not on this machine"
    what = {"imagenet": "trained on ImageNet", "random": f"random here{why}"}
    return Demonstration(
        title="Neuro-surgery: a borrowed first layer",
        text=f"Monster's first layer is AlexNet's ({what.get(origin, f'from {origin}')}). Frozen, it stays the same to "
        "the last bit while the layers above it learn; in the second half of the epochs it moves with them.",
        tables=(
            table(
                ("part", "parameters", "moved in epoch 1", "moved in epoch 2"),
                rows,
                "Largest change of a weight; epochs of three batches of noise, features.* frozen in epoch 1",
            ),
        ),
        pictures=(Picture("first_layer", _draw(filters), f"The 64 filters of the first layer ({origin})."),),
        facts={
            **{f"{part}_epoch_{epoch + 1}": m[part] for epoch, m in enumerate(moved) for part in PARTS},
            **{f"parameters_{part}": parameter_count(getattr(model, part)) for part in PARTS},
            "pretrained": float(origin != "random"),
        },
    )


PARTS = ("features", "converter", "blocks", "fc")


def build(choice: pretrained.Choice, blocks: int, seed: int) -> Monster:
    """The network, with the first layer from where the choice says."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Monster(shape=(3, 32, 32), classes=10, nb_residual_blocks=blocks, pretrained=choice)
    model.load_pretrained()
    return model


def train(model: nn.Module, plan: FreezePlan, lr: float, seed: int) -> list[dict[str, float]]:
    """Two epochs of three batches of noise; for each, the largest change of a weight in every part."""
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    moved = []
    for epoch in range(EPOCHS):
        plan.apply(epoch)
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        for _ in range(3):
            images = torch.randn(8, 3, 32, 32, generator=random)
            labels = torch.randint(10, (8,), generator=random)
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
        changes = {name: (p.detach() - before[name]).abs().max().item() for name, p in model.named_parameters()}
        moved.append({part: max(c for name, c in changes.items() if name.startswith(f"{part}.")) for part in PARTS})
    return moved


def _choice(asked: bool | str | None) -> pretrained.Choice:
    """The choice that was asked for, resolved; None does not download 240 MB for a picture."""
    if asked is not None:
        try:
            return pretrained.resolve(asked)
        except InputError as error:  # it names the key of a training run
            raise InputError(str(error).replace("model.pretrained", "pretrained")) from error
    return pretrained.cached_file(pretrained.ALEXNET_URL).exists()


def _draw(filters: Tensor) -> "Figure":
    figure, axes = plotting.figure(6.0, 6.2)
    (panel,) = axes.flat
    panel.imshow(mosaic(filters))
    panel.set_axis_off()
    return figure


def mosaic(filters: Tensor, columns: int = 8) -> np.ndarray[Any, Any]:
    """Filters (n, 3, height, width) side by side as colours, each scaled by its own largest weight; grey is zero."""
    scaled = filters / filters.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12) / 2 + 0.5
    framed = F.pad(scaled, (1, 1, 1, 1), value=1.0)  # (n, 3, height + 2, width + 2)
    rows = [torch.cat(list(row), dim=2) for row in framed.split(columns)]  # (3, height + 2, columns · (width + 2))
    return torch.cat(rows, dim=1).permute(1, 2, 0).numpy()  # (rows · (height + 2), columns · (width + 2), 3)
