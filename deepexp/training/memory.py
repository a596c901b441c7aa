"""How a lack of memory is told from other errors, and what to do about it."""

import torch

from deepexp.schema import TrainConfig

# On a CPU of Linux and macOS, of Windows, on MPS.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "MPS backend out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or NumPy ran out of memory; on a CPU and a Mac's GPU torch says so in a plain `RuntimeError`."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # oneDNN knows that it can compute something before it makes "a primitive", for which memory alone may be lacking.
    return any(words in str(error) for words in _NO_MEMORY) or str(error) == "could not create a primitive"


def out_of_memory(config: TrainConfig) -> str:
    """What to tell the user of a run that ran out of memory: the settings that need less and are not chosen yet."""
    savings = {
        "precision=bf16": config.precision not in ("bf16", "fp16"),
        "on_oom=halve": config.on_oom != "halve",
        "data.mode=streamed": config.data.mode != "streamed",
    }
    others = ", ".join(saving for saving, is_left in savings.items() if is_left)
    return "out of memory: lower batch_size" + (f", or try {others}" if others else "")
