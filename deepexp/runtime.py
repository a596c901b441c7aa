"""What a process is given to work with: device, threads, memory allocator, numeric modes, seeds.

Everything here is process-wide, so `session` sets it for the length of one run and puts back what can be put back.
No model, data or config classes belong here.
"""

import contextlib
import ctypes
import functools
import hashlib
import logging
import math
import os
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepexp.errors import InputError
from deepexp.process import control_group, waiting
from deepexp.text.units import counted

log = logging.getLogger(__name__)

_BFLOAT16 = {"avx512_bf16", "amx_bf16", "avx_ne_convert"}
"""The CPU flags, as Linux names them, of instructions that oneDNN uses for bfloat16."""


def derive_seed(seed: int, *words: str | int) -> int:
    """A 63-bit seed for one purpose (`"order", epoch`), independent of the others and the same on every machine."""
    text = "/".join(str(part) for part in (seed, *words))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *words: str | int) -> torch.Generator:
    """A CPU generator of its own for one purpose."""
    return torch.Generator().manual_seed(derive_seed(seed, *words))


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA, else MPS, else the CPU; a device that is named must be there, else `InputError`."""
    cuda_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    has_mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda", 0) if cuda_devices else torch.device("mps" if has_mps else "cpu")
    allowed = ["auto", "cpu", *(["mps"] if has_mps else [])]
    allowed += [f"cuda:{index}" for index in range(cuda_devices)]
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device: {name!r} is no device; allowed here: {', '.join(allowed)}") from None
    if device.type == "cuda":
        index = device.index or 0
        if index >= cuda_devices:
            found = counted(cuda_devices, "CUDA device") if cuda_devices else "no CUDA device"
            raise InputError(f"device: {name!r} is not there ({found}); allowed here: {', '.join(allowed)}")
        return torch.device("cuda", index)
    if device.type == "cpu" or (device.type == "mps" and has_mps):
        return torch.device(device.type)
    raise InputError(f"device: {name!r} is not there; allowed here: {', '.join(allowed)}")


def describe_device(device: torch.device) -> str:
    """The device in words: the GPU's name, or the number of threads on a CPU."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"cpu ({counted(torch.get_num_threads(), 'thread')})"
    return str(device)


def cpu_arithmetic() -> dict[str, int | str]:
    """What rounding on a CPU depends on: the number of threads, and the widest vector instructions that torch uses.

    Which order a model computes in can depend on the instructions, too (`models/onednn.py`).
    """
    matrix_units = " and AMX" if torch.cpu._is_amx_tile_supported() else ""
    instructions = torch.backends.cpu.get_cpu_capability() + matrix_units
    return {"threads": torch.get_num_threads(), "instructions": instructions}


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given, so that a clock can be read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def warn_of_imitation(device: torch.device, precision: str) -> None:
    """Warn if a CPU has no instructions for bfloat16: a run in it then takes several times as long as in float32.

    Where the CPU's flags are not known, on systems other than Linux and processors other than x86, there is no warning.
    """
    flags = cpu_flags()
    if device.type == "cpu" and precision == "bf16" and flags and not flags & _BFLOAT16:
        log.warning("precision: this CPU can only imitate bf16, which is several times slower than fp32")


@functools.cache
def cpu_flags(told: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The flags of an x86 processor, as Linux names them; empty if they are not known."""
    try:
        lines = told.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return next((frozenset(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), frozenset())


def available_cores() -> int:
    """The cores that this process may use, which can be fewer than the machine has; a part of a core counts as one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = control_group.cpu_quota()
    return cores if quota is None else min(cores, math.ceil(quota))


@functools.cache
def default_threads() -> int:
    """What torch chose at start (OMP_NUM_THREADS, else the physical cores), within the cores of this process.

    Cached, since `torch.set_num_threads` makes torch forget it.
    """
    return max(1, min(torch.get_num_threads(), available_cores()))


def number_of_threads(asked: int | str) -> int:
    """The number of threads that `threads` of a config, a number or `auto`, stands for."""
    return default_threads() if asked == "auto" else int(asked)


@functools.cache
def tune_malloc() -> bool:
    """Let glibc keep and reuse the memory of freed tensors instead of returning it to the system at each step.

    By default glibc maps every large block afresh and trims the heap, so a training step spends up to a third of its
    time in page faults. One arena, since the backward pass runs in a thread whose own arena would hold a second copy.
    Returns whether anything was set (only glibc has `mallopt`). It cannot be undone, and need not be.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    trim_threshold, top_pad, mmap_threshold, arena_max = -1, -2, -3, -8  # names in glibc's malloc.h
    settings = {
        mmap_threshold: 1 << 30,
        trim_threshold: 2**31 - 1,
        top_pad: 64 << 20,
        arena_max: 1,
    }
    return sum(mallopt(parameter, value) for parameter, value in settings.items()) == len(settings)


@contextlib.contextmanager
def session(device: torch.device, *, threads: int | str, deterministic: bool, tf32: bool) -> Iterator[None]:
    """Set the process up for one run; threads, numeric modes and the global generators are put back afterwards.

    The caller's own modes (autocast, no_grad, a default dtype or device) do not apply within.
    """
    default_threads()  # remembers torch's own choice, which is lost once another number is set
    before_threads = torch.get_num_threads()
    before_deterministic = torch.get_deterministic_debug_mode()
    before_precision = torch.get_float32_matmul_precision()
    before_cudnn_tf32 = torch.backends.cudnn.allow_tf32
    before_benchmark = torch.backends.cudnn.benchmark
    tune_malloc()
    if threads != "auto" and int(threads) > available_cores():
        log.warning("threads: %s have to share the %d cores of this process", threads, available_cores())
    torch.set_num_threads(number_of_threads(threads))
    if deterministic:
        # cuBLAS reads this once, at its first call; without it torch refuses deterministic matrix products.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    _set_deterministic(2 if deterministic else 0)
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = not deterministic
    try:
        with (
            plain_modes(device),
            forked_random(device),
            waiting.considerate(torch.get_num_threads(), available_cores()),
        ):
            yield
    finally:
        torch.set_num_threads(before_threads)
        _set_deterministic(before_deterministic)
        torch.set_float32_matmul_precision(before_precision)
        torch.backends.cudnn.allow_tf32 = before_cudnn_tf32
        torch.backends.cudnn.benchmark = before_benchmark


@contextlib.contextmanager
def plain_modes(device: torch.device) -> Iterator[None]:
    """Gradients, no autocast, new tensors float32 on the CPU: as in a process that has set nothing."""
    before_dtype = torch.get_default_dtype()
    with contextlib.ExitStack() as modes:
        modes.callback(torch.set_default_dtype, before_dtype)
        torch.set_default_dtype(torch.float32)
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.enable_grad())
        for kind in {"cpu", device.type}:
            if torch.is_autocast_enabled(kind):
                modes.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":  # else nothing is entered: torch would be slower in it
            modes.enter_context(torch.device("cpu"))
        yield


def _set_deterministic(mode: int) -> None:
    """0: any algorithms, 1: warn of one that is not deterministic, 2: refuse it (torch's "debug mode")."""
    if mode != torch.get_deterministic_debug_mode():  # the call imports torch's compiler, for seconds
        torch.use_deterministic_algorithms(mode > 0, warn_only=mode == 1)


def seed_generators(seed: int) -> None:
    """Seed the global generators: torch's of all devices, NumPy's and Python's, which a model of the user's may use."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextlib.contextmanager
def forked_random(device: torch.device) -> Iterator[None]:
    """Put the global generators back afterwards: NumPy's, Python's, torch's of the CPU, of `device`, of GPUs in use.

    GPUs in use are among them, as `torch.manual_seed` seeds them too. Unless it is given devices, `fork_rng` would
    begin to use all CUDA devices, and warn if there are several.
    """
    of_python, of_numpy = random.getstate(), np.random.get_state()
    try:
        with _forked_torch(device):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)


def _forked_torch(device: torch.device) -> contextlib.AbstractContextManager[None]:
    if torch.backends.mps.is_available():
        return torch.random.fork_rng([torch.device("mps")], device_type="mps")
    gpus: Sequence[int | torch.device] = [device] if device.type == "cuda" else []
    if torch.cuda.is_initialized():
        gpus = range(torch.cuda.device_count())
    return torch.random.fork_rng(gpus, device_type="cuda")


def random_state(device: torch.device) -> dict[str, Any]:
    """The global generators: torch's, for dropout, as byte tensors; NumPy's and Python's as plain values."""
    of_numpy: Any = np.random.get_state()
    name, keys, *rest = of_numpy
    state = {"cpu": torch.get_rng_state(), "numpy": (name, keys.tolist(), *rest), "python": random.getstate()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Restore what `random_state` returned; older checkpoints have torch's alone."""
    torch.set_rng_state(state["cpu"])
    if "numpy" in state:
        np.random.set_state(state["numpy"])
        random.setstate(state["python"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    elif device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"])
