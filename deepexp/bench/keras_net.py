"""The lecture's net and optimizers in Keras, for the benchmarks.

Keras is imported when it is needed, and nothing else but the standard library.
"""

import importlib.util
import os
from typing import Any


def prepare(threads: int) -> None:
    """Choose TensorFlow as Keras's backend if it is there and no other is asked for, and the threads; before an import.

    TensorFlow's oneDNN kernels and JAX take the number of threads from OMP_NUM_THREADS.
    """
    if "KERAS_BACKEND" not in os.environ and importlib.util.find_spec("tensorflow") is not None:
        os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ["OMP_NUM_THREADS"] = str(threads)


def network(shape: tuple[int, int, int], hidden: int, classes: int) -> Any:
    """`mnist_net` with ReLU, for pictures (batch, height, width, channels); `shape` is (channels, height, width)."""
    from keras import Input, Sequential
    from keras.layers import Conv2D, Dense, Flatten, MaxPooling2D, ReLU

    channels, height, width = shape
    return Sequential(
        [
            Input((height, width, channels)),
            Conv2D(32, 5),
            MaxPooling2D(3),
            ReLU(),
            Conv2D(64, 5),
            MaxPooling2D(2),
            ReLU(),
            Flatten(),
            Dense(hidden, activation="relu"),
            Dense(classes),
        ]
    )


def optimizer(name: str, arguments: dict[str, Any]) -> Any:
    """One of Keras's optimizers."""
    import keras

    return getattr(keras.optimizers, name)(**arguments)
