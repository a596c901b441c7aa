"""The lecture's net written for Keras: a Sequential model, compiled, `fit` and `evaluate` on arrays in memory.

The initial weights, the optimizer, the batch size and the number of threads are those of the config. Only `mnist_net`
with its defaults is written for Keras, and only optimizers that have the same rule there can be used.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from deepexp import build, runtime
from deepexp.bench import keras_net, plain
from deepexp.bench.contender import EpochResult, Unsuited, check_plain_batches
from deepexp.check import Plan
from deepexp.models.mnist_net import MnistNet
from deepexp.schema import TrainConfig

_POLICIES = {"fp32": "float32", "tf32": "float32", "bf16": "mixed_bfloat16", "fp16": "mixed_float16"}


@contextlib.contextmanager
def opened(config: TrainConfig, plan: Plan) -> Iterator["Keras"]:
    """The model, compiled. Raises `Unsuited` for what Keras does not have in the same form."""
    check_plain_batches(config)
    check_device(plan.device)
    threads = runtime.number_of_threads(config.threads)
    keras_net.prepare(threads)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    torch.set_num_threads(threads)
    with _silent():
        import keras

        if keras.backend.backend() == "tensorflow":
            import tensorflow

            tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
            tensorflow.config.threading.set_inter_op_parallelism_threads(threads)
            tensorflow.zeros(1)  # TensorFlow looks for its devices, and writes about it
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(_POLICIES[config.precision])
    yield Keras(config, plan)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Discard stderr: TensorFlow writes to it when it is loaded, from C++, whatever its log level."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


class Keras:
    """A `Contender`."""

    def __init__(self, config: TrainConfig, plan: Plan) -> None:
        import keras

        self.name = f"Keras {keras.__version__} ({keras.backend.backend()})"
        data = build.dataset(config, plan)
        plain.check_memory(data, torch.device("cpu"))
        net = build.model(config, plan.shape, len(data.classes), "cpu")
        optimizer = keras_net.optimizer(*optimizer_named(build.optimizer(config, net)))
        self.model = sequential(net, plan.shape)
        self.model.compile(
            optimizer=optimizer,
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        self._train, self._test = (
            _arrays(*plain.floats(split, data, torch.device("cpu"))) for split in (data.train, data.test)
        )
        self._batch_size = config.batch_size

    def steps(self, count: int) -> float:
        """See `Contender`. From the difference of a long and a short `fit`, in which the cost of a call cancels out.

        If other work delayed the short one so much that it took longer, both are measured again.
        """
        seconds = 0.0
        while seconds <= 0:
            short = self._fit_seconds(1)
            seconds = self._fit_seconds(count + 1) - short
        return seconds / count

    def epoch(self) -> EpochResult:
        """See `Contender`."""
        began = time.perf_counter()
        self.model.fit(*self._train, batch_size=self._batch_size, epochs=1, verbose=0)
        _, accuracy = self.model.evaluate(*self._test, batch_size=self._batch_size, verbose=0)
        return EpochResult(time.perf_counter() - began, 1 - accuracy)

    def _fit_seconds(self, steps: int) -> float:
        images, labels = self._train
        needed = steps * int(self._batch_size)
        rows = np.arange(needed) % len(labels)
        images, labels = images[rows], labels[rows]
        began = time.perf_counter()
        self.model.fit(images, labels, batch_size=self._batch_size, epochs=1, verbose=0)
        return time.perf_counter() - began


def checked(net: nn.Module) -> MnistNet:
    """The net, if it exists in Keras here; else `Unsuited` is raised."""
    if not isinstance(net, MnistNet) or not isinstance(net.activation, nn.ReLU) or _is_regularised(net):
        raise Unsuited("it has mnist_net only, with ReLU and neither dropout nor batch normalisation")
    return net


def _is_regularised(net: MnistNet) -> bool:
    return not all(isinstance(part, nn.Identity) for part in (net.bn1, net.dropout))


def check_device(device: torch.device) -> None:
    """Raise `Unsuited` for a device that Keras is not measured on."""
    if device.type != "cpu":
        raise Unsuited("it is measured on CPUs only")


def sequential(net: nn.Module, shape: tuple[int, int, int]) -> Any:
    """The same layers with the same weights, for pictures (batch, height, width, channels). Raises `Unsuited`."""
    net = checked(net)
    model = keras_net.network(shape, net.fc1.out_features, net.fc2.out_features)
    model.set_weights(_weights(net, model.layers[5].output.shape[1:3]))
    return model


def _weights(net: MnistNet, map_size: tuple[int, int]) -> list[np.ndarray]:
    """The weights in Keras's layouts: (height, width, in, out), (in, out); maps are flattened with channels last."""
    fc1 = net.fc1.weight.detach()  # (hidden, 64 * height * width)
    fc1 = fc1.reshape(-1, 64, *map_size).permute(2, 3, 1, 0).reshape(-1, net.fc1.out_features)
    tensors = [
        net.conv1.weight.permute(2, 3, 1, 0),
        net.conv1.bias,
        net.conv2.weight.permute(2, 3, 1, 0),
        net.conv2.bias,
        fc1,
        net.fc1.bias,
        net.fc2.weight.T,
        net.fc2.bias,
    ]
    return [tensor.detach().numpy() for tensor in tensors if tensor is not None]


def optimizer_named(ours: torch.optim.Optimizer) -> tuple[str, dict[str, Any]]:
    """The name and the arguments of Keras's optimizer with the same rule. Raises `Unsuited` if there is none."""
    options = ours.param_groups[0]
    if len(ours.param_groups) == 1 and not options.get("weight_decay"):
        rate = {"learning_rate": options["lr"]}
        if type(ours) is torch.optim.SGD and not options["dampening"]:
            return "SGD", {**rate, "momentum": options["momentum"], "nesterov": options["nesterov"]}
        if type(ours) is torch.optim.Adam and not options["amsgrad"]:
            beta_1, beta_2 = options["betas"]
            return "Adam", {**rate, "beta_1": beta_1, "beta_2": beta_2, "epsilon": options["eps"]}
    raise Unsuited("it has SGD and Adam only, without weight decay and groups")


def _arrays(images: torch.Tensor, labels: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (samples, height, width, channels) float32, labels (samples,)."""
    return np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy()), labels.numpy()
