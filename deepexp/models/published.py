"""What networks of other libraries have in common: do pictures fit them, and which layers have published weights?"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from deepexp.models.blocks import Shape

_SIDES = (32, 64, 96, 128, 224, 299)  # pixels; those that fit are proposed if pictures do not


def check_choices(name: str, library: str, *, pretrained: object, batch_norm: bool | None) -> None:
    """`ValueError` for a source of weights other than the library, or for batch normalisation other than its own."""
    if batch_norm is not None:
        raise ValueError(f"batch_norm: {batch_norm} is not allowed, {name} defines it itself; set batch_norm=null")
    if not isinstance(pretrained, bool):
        raise ValueError(f"pretrained: {pretrained!r} is neither true nor false, the choices of model={library}")


class _NumbersOnCpu(TorchFunctionMode):
    """Keeps tensors of numbers on the CPU: networks read widths and rates from some, which have no values on meta."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.arange, torch.linspace, torch.tensor):
            kwargs.setdefault("device", "cpu")
        return func(*args, **kwargs)


def on_default_device(make: Callable[[], nn.Module]) -> nn.Module:
    """A network made on torch's default device; on the meta device, although it reads numbers from tensors."""
    if torch.get_default_device().type != "meta":
        return make()
    with _NumbersOnCpu():
        return make().to("meta")


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
        return next(iter(str(error).splitlines()), type(error).__name__)  # an assertion may say nothing
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
