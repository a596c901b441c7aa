"""What networks of other libraries have in common: do pictures fit them, and which layers have published weights?"""

import torch
from torch import nn

from deepexp.models.blocks import Shape

_SIDES = (32, 64, 96, 128, 224, 299)  # pixels; those that fit are proposed if pictures do not


def check_picture(name: str, network: nn.Module, shape: Shape) -> None:
    """`ValueError` for pictures that the network, given on the meta device, cannot take."""
    channels, height, width = shape
    reason = refusal(network, shape)
    if reason is None:
        return
    fitting = [side for side in _SIDES if refusal(network, (channels, side, side)) is None]
    takes = f"; of the usual sizes it takes {', '.join(map(str, fitting))} (data.resize)" if fitting else ""
    raise ValueError(f"shape: pictures of {height}x{width} do not fit {name} ({reason}){takes}")


def refusal(network: nn.Module, shape: Shape) -> str | None:
    """Why the network cannot take pictures of this shape; None if it can."""
    try:
        network.eval()(torch.empty(2, *shape, device="meta"))
    except (RuntimeError, ValueError, AssertionError) as error:
        return str(error).splitlines()[0]
    return None


def common_modules(network: nn.Module, published: nn.Module) -> tuple[str, ...]:
    """The names of the modules whose own parameters have the shapes of the published ones, below `network`."""
    shapes = {name: parameter.shape for name, parameter in published.named_parameters()}
    common = []
    for name, module in network.named_modules(prefix="network"):
        own = {f"{name}.{key}".removeprefix("network."): p.shape for key, p in module.named_parameters(recurse=False)}
        if own and own.items() <= shapes.items():
            common.append(name)
    return tuple(common)
