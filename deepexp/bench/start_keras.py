"""The lecture's net with Keras, until its first update: `python -m deepexp.bench.start_keras BEGAN ANSWER TASK`.

No PyTorch, unless that is Keras's backend here.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from deepexp.bench import keras_net, stopwatch
from deepexp.bench.stopwatch import Stopwatch


def main() -> None:
    """Train until the first update is made."""
    watch, answer, (task,) = stopwatch.given()
    content = json.loads(Path(task).read_text(encoding="utf-8"))
    keras_net.prepare(content["threads"])
    import keras

    model = keras_net.network(tuple(content["shape"]), content["hidden"], content["classes"])
    model.compile(
        optimizer=keras_net.optimizer(*content["optim"]),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    images = np.load(content["images"]).transpose(0, 2, 3, 1).astype(np.float32)
    images = (images - np.array(content["mean"], np.float32)) / np.array(content["std"], np.float32)
    called = _first_update(keras, watch, answer)
    model.fit(images, np.load(content["labels"]), content["batch_size"], epochs=1, verbose=0, callbacks=[called])


def _first_update(keras: Any, watch: Stopwatch, answer: Path) -> Any:
    class FirstUpdate(keras.callbacks.Callback):  # type: ignore[misc]
        began = 0.0

        def on_train_batch_begin(self, *_: Any, **__: Any) -> None:
            self.began = watch.read()

        def on_train_batch_end(self, *_: Any, **__: Any) -> None:
            stopwatch.report(answer, self.began, watch)

    return FirstUpdate()


if __name__ == "__main__":
    main()
