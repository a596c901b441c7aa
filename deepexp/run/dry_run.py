"""`dry_run=true`: what a run would be, without making it: config, parameters, memory, and one batch."""

import contextlib
import time
from collections.abc import Iterator

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from deepexp import build, runtime, weights
from deepexp.check import Plan
from deepexp.config import catalogue
from deepexp.config.composer import Composed
from deepexp.data.order import epoch_order
from deepexp.errors import DeepexpError, RunFailed
from deepexp.models.size import parameter_count
from deepexp.parts import Parts
from deepexp.schema import TrainConfig
from deepexp.step import Batch
from deepexp.text.console import Console
from deepexp.text.text_table import Table
from deepexp.text.units import counted
from deepexp.training.memory import is_out_of_memory, out_of_memory
from deepexp.user_code import own_code


def show(config: TrainConfig, plan: Plan, composed: Composed, console: Console) -> None:
    """Print it all; one update is made with a real batch, and nothing is written. `RunFailed` if that fails."""
    console.print(OmegaConf.to_yaml(composed.config, resolve=True).rstrip())
    catalogue.warn_of_unused(composed.choices.items())
    weights.resolve(config, plan)
    data = build.dataset(config, plan)
    try:
        model = build.model(config, plan.shape, len(data.classes), plan.device)
        with contextlib.closing(build.parts(config, plan, data, model, build.data_mode(config, plan, data))) as parts:
            _try(config, plan, parts, data.train.images, console)
    except DeepexpError:
        raise
    except (Exception, SystemExit) as error:  # code of the user's own may raise anything
        raise RunFailed(out_of_memory(config) if is_out_of_memory(error) else own_code.told(error)) from error
    console.print("dry run: nothing was trained or written")


def _try(config: TrainConfig, plan: Plan, parts: Parts, pictures: Tensor, console: Console) -> None:
    """Make one update, with the first batch that a run takes, and print the parameters, memory, loss and time."""
    model = parts.model
    parts.freeze.apply(0)
    model.train()
    parts.freeze.eval_frozen()
    for line in _parameter_table(model, parts.optimizer).lines():
        console.print(line)
    bounds = plan.updates[0][:1]
    order = epoch_order(parts.train_samples, config.order, config.seed, 0)
    images, labels = next(parts.train.batches(order, bounds))
    kept = _bytes_kept_for_backward(model, images)
    began = time.perf_counter()
    update = parts.step(iter([Batch(images, labels)]), len(labels))
    loss, errors = update.loss.item(), int(update.errors.item())
    seconds = time.perf_counter() - began
    console.print("")
    for line in _memory_table(model, parts, pictures, kept):
        console.print(line)
    console.print("")
    console.print(f"{counted(len(plan.updates), 'update')} an epoch, {plan.total_steps:,} in all")
    console.print(
        f"one batch of {len(labels)}: loss {loss:.4f}, {counted(errors, 'error')}, "
        f"{1000 * seconds:.1f} ms (the first is slow)"
    )


def _parameter_table(model: nn.Module, optimizer: torch.optim.Optimizer) -> Table:
    """Name, shape, number, and learning rate or `frozen` of every parameter."""
    rates = {id(p): group["initial_lr"] for group in optimizer.param_groups for p in group["params"]}
    rows = [
        (name, "×".join(map(str, p.shape)), f"{p.numel():,}", f"{rates[id(p)]:g}" if p.requires_grad else "frozen")
        for name, p in model.named_parameters()
    ]
    total = parameter_count(model)
    return Table(["parameter", "shape", "values", "lr"], [*rows, ("total", "", f"{total:,}", "")], frozenset({2, 3}))


def _memory_table(model: nn.Module, parts: Parts, images: Tensor, kept: int) -> Iterator[str]:
    state = (value for values in parts.optimizer.state.values() for value in values.values())
    rows = {
        "parameters": sum(p.nbytes for p in model.parameters()),
        "gradients": sum(p.nbytes for p in model.parameters() if p.requires_grad),
        "optimizer state": sum(value.nbytes for value in state if isinstance(value, Tensor)),
        "activations of a batch": kept,
        "training pictures": images.nbytes,
    }
    for name, size in {**rows, "together": sum(rows.values())}.items():
        yield f"{name:<22}  {size / 2**20:>10,.1f} MiB"


def _bytes_kept_for_backward(model: nn.Module, images: Tensor) -> int:
    """What a forward pass keeps for the backward pass, each piece of memory counted once, weights left out."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with runtime.forked_random(images.device), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = model(images)  # kept alive: in memory used again, two tensors would count as one
        del output
    return sum(kept.values())
