"""Updates of all weights in one pass over memory, where torch has them and they are faster.

The rules are the same as in torch's ordinary loop over parameters, rounded at fewer places: after a hundred updates
weights differ by some units in the last place of float32.
"""

import functools
from typing import Any

import torch

from deepexp.optim.capturable import WAYS


def fused_arguments(optimizer: "functools.partial[torch.optim.Optimizer]", device: torch.device) -> dict[str, Any]:
    """Further arguments that make its updates faster; none if it was given one of `WAYS`.

    On a CPU, measured on the lecture's net and ResNet-20: Adam and AdamW take about half the time of the loop. SGD is
    left alone: without momentum it would take longer, and with momentum torch's fails when frozen weights thaw.
    """
    is_open = not set(WAYS) & optimizer.keywords.keys()
    wins = optimizer.func in (torch.optim.Adam, torch.optim.AdamW) and device.type == "cpu"
    return {"fused": True} if wins and is_open else {}
