"""The machine's limit for a model: its convolutions and matrix products, each at its best, and the memory traffic.

Only what every way of training has to do is counted: the floating-point operations of the convolutions and products,
forward and backward, and the bytes of the input, read and written once. Their rates are measured here, with the shapes
of each layer. All else (activations, pooling, normalisation, the update) counts as nothing, so no step can be faster.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from deepexp import build
from deepexp.bench.contender import EpochResult
from deepexp.bench.operations import busy_seconds_of
from deepexp.check import Plan
from deepexp.models import onednn
from deepexp.optim.freeze import FreezePlan
from deepexp.runtime import synchronise
from deepexp.schema import TrainConfig
from deepexp.step import Precision
from deepexp.training.evaluation import BATCH_SIZE as EVALUATION_BATCH

_SECONDS_A_LAYER = 0.3
_CALLS_A_LAYER = 10  # on a GPU
_COPY_BYTES = 64 << 20


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer, and the shapes and types of a batch before and behind it."""

    name: str
    module: nn.Conv2d | nn.Linear
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    needs_input_gradient: bool
    trains: bool
    input_type: torch.dtype = torch.float32
    output_type: torch.dtype = torch.float32
    blocked: bool = False
    """Whether the batch is in oneDNN's memory order."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """What the layer computes, without its bias."""
        if isinstance(self.module, nn.Linear):
            return F.linear(inputs, self.module.weight)
        conv = self.module
        if self.blocked:
            return onednn.CONVOLUTION(inputs, conv.weight, None, conv.padding, conv.stride, conv.dilation, conv.groups)
        padding = conv.padding if conv.padding_mode == "zeros" else 0  # other kinds are in the input already
        return F.conv2d(inputs, conv.weight, None, conv.stride, padding, conv.dilation, conv.groups)

    @property
    def forward_flops(self) -> int:
        """Twice the multiplications of a pass; those with the zeros of a padding are not counted."""
        if isinstance(self.module, nn.Linear):
            return 2 * math.prod(self.output_shape) * self.module.in_features
        conv, (batch, _, *sizes), (_, _, *outputs) = self.module, self.input_shape, self.output_shape
        taps = math.prod(_taps(conv, sizes[axis], outputs[axis], axis) for axis in (0, 1))
        return 2 * batch * conv.out_channels * (conv.in_channels // conv.groups) * taps

    @property
    def training_flops(self) -> int:
        """Forward, and as much again for each gradient that is needed: of the input, of the weights."""
        return self.forward_flops * (1 + self.needs_input_gradient + self.trains)


def _taps(module: nn.Conv2d, size: int, outputs: int, axis: int) -> int:
    """How often, along one axis, a weight of the kernel meets a pixel and not the padding."""
    kernel, stride, dilation = module.kernel_size[axis], module.stride[axis], module.dilation[axis]
    padding = _zeros_before(module, axis)
    positions = [output * stride + tap * dilation - padding for output in range(outputs) for tap in range(kernel)]
    return sum(0 <= position < size for position in positions)


def _zeros_before(module: nn.Conv2d, axis: int) -> int:
    """How many zeros a convolution puts before the first pixel along an axis."""
    if module.padding_mode != "zeros" or module.padding == "valid":
        return 0
    if module.padding == "same":
        return module.dilation[axis] * (module.kernel_size[axis] - 1) // 2
    return int(module.padding[axis])


@contextlib.contextmanager
def opened(config: TrainConfig, plan: Plan) -> Iterator["Limit"]:
    """The model, ready to be taken apart, in a process set up as for a run."""
    with build.session(dataclasses.replace(config, deterministic=False), plan):
        yield Limit(config, plan)


class Limit:
    """A `Contender` that does not train: it only answers `limit`."""

    name = "limit of this machine"

    def __init__(self, config: TrainConfig, plan: Plan) -> None:
        self._plan = plan
        self._precision = Precision(plan.device, config.precision)
        self._model = build.model(config, plan.shape, len(plan.info.classes), plan.device)
        FreezePlan(self._model, build.freeze_rules(config, self._model), config.epochs).apply(0)
        start, stop = plan.updates[0][0]
        self._batch = stop - start
        self._updates = len(plan.updates)
        self._batches = sum(len(update) for update in plan.updates)
        self._clock = "kernels" if plan.device.type == "cuda" else "wall"

    def steps(self, count: int) -> float:
        """It has no steps."""
        raise NotImplementedError

    def epoch(self) -> EpochResult:
        """It has no epochs."""
        raise NotImplementedError

    def measure(self) -> dict[str, Any]:
        """Seconds that a step, and an epoch with its test, take at least; the layers with their rates."""
        with self._precision.arithmetic():
            layers = layers_of(self._model, self._images(self._batch))
            tests = layers_of(self._model, self._images(EVALUATION_BATCH))
        copied = self._copy_rate()
        training = [self._best(self._training(layer)) for layer in layers]
        testing = [self._best(self._testing(layer)) for layer in tests]
        per_batch = sum(training) + _input_bytes(self._plan.shape, self._batch) / copied
        per_test = sum(testing) + _input_bytes(self._plan.shape, EVALUATION_BATCH) / copied
        return {
            "step_seconds": per_batch * self._batches / self._updates,
            "epoch_seconds": per_batch * self._batches + per_test * self._plan.info.test_samples / EVALUATION_BATCH,
            "step_flops": sum(layer.training_flops for layer in layers) * self._batches / self._updates,
            "copy_bytes_per_second": copied,
            "clock": self._clock,
            "layers": [
                {
                    "name": layer.name,
                    "flops": layer.training_flops,
                    "seconds": seconds,
                    "flops_per_second": layer.training_flops / seconds,
                }
                for layer, seconds in zip(layers, training, strict=True)
            ],
        }

    def _images(self, batch: int) -> Tensor:
        images = torch.randn(batch, *self._plan.shape, device=self._plan.device)
        return images.contiguous(memory_format=torch.channels_last)

    def _training(self, layer: Layer) -> Callable[[], object]:
        """Forward and backward of the layer by itself."""
        inputs, gradient = self._tensors(layer)
        inputs.requires_grad_(layer.needs_input_gradient)
        wanted = [inputs] if layer.needs_input_gradient else []
        wanted += [layer.module.weight] if layer.trains else []

        def run() -> object:
            with self._precision.arithmetic(), torch.set_grad_enabled(bool(wanted)):
                output = layer(inputs)
            return torch.autograd.grad(output, wanted, gradient) if wanted else output

        return run

    def _testing(self, layer: Layer) -> Callable[[], object]:
        inputs, _ = self._tensors(layer)

        def run() -> object:
            with torch.inference_mode(), self._precision.arithmetic():
                return layer(inputs)

        return run

    def _tensors(self, layer: Layer) -> tuple[Tensor, Tensor]:
        """Random (input, gradient of the output), of the types and in the memory order that training has them in."""
        device = self._plan.device
        order = torch.channels_last if len(layer.input_shape) == 4 else torch.contiguous_format
        inputs = torch.randn(layer.input_shape, device=device).to(layer.input_type, memory_format=order)
        gradient = torch.randn(layer.output_shape, device=device).to(layer.output_type, memory_format=order)
        return (inputs.to_mkldnn(), gradient.to_mkldnn()) if layer.blocked else (inputs, gradient)

    def _best(self, run: Callable[[], object]) -> float:
        """The least seconds of one call; on a GPU, if it can be profiled, of its kernels without their launches."""
        device, best = self._plan.device, float("inf")
        if device.type == "cuda":
            seconds = self._kernel_seconds(run)
            if seconds > 0:
                return seconds
            self._clock = "wall"
        run()  # what torch imports and chooses for a first call may take longer than all the others
        end = time.perf_counter() + _SECONDS_A_LAYER
        while best == float("inf") or time.perf_counter() < end:
            synchronise(device)
            began = time.perf_counter()
            run()
            synchronise(device)
            best = min(best, time.perf_counter() - began)
        return best

    def _kernel_seconds(self, run: Callable[[], object]) -> float:
        """Seconds of the kernels of one call; 0 if the GPU may not be profiled."""
        run()  # so that libraries have chosen their algorithms

        def calls() -> None:
            for _ in range(_CALLS_A_LAYER):
                run()
            synchronise(self._plan.device)

        return min(busy_seconds_of(calls, self._plan.device) for _ in range(2)) / _CALLS_A_LAYER

    def _copy_rate(self) -> float:
        """Bytes read and written a second by a copy too large for a cache."""
        source = torch.ones(_COPY_BYTES // 4, device=self._plan.device)
        target = torch.empty_like(source)
        return 2 * _COPY_BYTES / self._best(lambda: target.copy_(source))


def layers_of(model: nn.Module, images: Tensor) -> list[Layer]:
    """Every convolution and linear layer that the pictures pass, in that order, with the gradients that it needs.

    A model may call a layer, or call torch's function with the layer's weights.
    """
    with _Watch(model) as watch:
        model(images)
    return watch.found


class _Watch(TorchFunctionMode):
    """Records each call of a convolution or product with the weights of a layer of the model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.found: list[Layer] = []
        self._owners = {
            id(module.weight): (name, module)
            for name, module in model.named_modules()
            if isinstance(module, (nn.Conv2d, nn.Linear))
        }

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in (F.conv2d, F.linear, onednn.CONVOLUTION) and id(args[1]) in self._owners:
            name, module = self._owners[id(args[1])]
            self.found.append(
                Layer(
                    name,
                    module,
                    tuple(args[0].shape),
                    tuple(output.shape),
                    needs_input_gradient=args[0].requires_grad,
                    trains=module.weight.requires_grad,
                    input_type=args[0].dtype,
                    output_type=output.dtype,
                    blocked=args[0].is_mkldnn,
                )
            )
        return output


def _input_bytes(shape: tuple[int, int, int], batch: int) -> int:
    """Bytes moved for the pictures of a batch, which are read as uint8 and written as float32."""
    channels, height, width = shape
    return batch * channels * height * width * (1 + 4)
