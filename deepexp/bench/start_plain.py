"""The plain loop as a script, until its first update: `python -m deepexp.bench.start_plain BEGAN ANSWER TASK`.

What one writes with PyTorch and nothing else: pictures from a NumPy file, made float tensors; a net, an optimizer. Of
deepexp it imports nothing but the class of the net, if that is one of deepexp's.
"""

import json
import pkgutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepexp.bench import stopwatch


def main() -> None:
    """Train until the first update is made."""
    watch, answer, (task,) = stopwatch.given()
    content = json.loads(Path(task).read_text(encoding="utf-8"))
    images, labels = pictures(content)
    model, optimizer = net_and_optimizer(content)
    device = torch.device(content["device"])
    images, labels, size = images.to(device), labels.to(device), content["batch_size"]
    began = watch.read()
    loss = F.cross_entropy(model(images[:size]), labels[:size])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    loss.item()
    stopwatch.report(answer, began, watch)


def pictures(content: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """(normalised pictures (samples, channels, height, width) float32, labels (samples,)), in memory."""
    torch.set_num_threads(content["threads"])
    images = torch.from_numpy(np.load(content["images"])).float()
    mean, std = (torch.tensor(content[name]).view(-1, 1, 1) for name in ("mean", "std"))
    return images.sub_(mean).div_(std), torch.from_numpy(np.load(content["labels"]))


def net_and_optimizer(content: dict[str, Any]) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The net and the optimizer of the config; the net is on its device and in training mode."""
    torch.manual_seed(content["seed"])
    made, trained = content["model"], content["optim"]
    given = {"shape": tuple(content["shape"]), "classes": content["classes"], **made["arguments"]}
    net = pkgutil.resolve_name(made["target"])(**given).to(content["device"])
    return net, pkgutil.resolve_name(trained["target"])(net.parameters(), **trained["arguments"])


if __name__ == "__main__":
    main()
