import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import deepexp
from deepexp import runtime

SMALL = ("epochs=1", "data.subset=60", "data.resize=22", "batch_size=20")
Generators = dict[int, torch.Tensor]


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Generators]:
    """Simulates two GPUs that have nothing but the states of their generators."""

    def make(*, in_use: bool) -> Generators:
        states = {index: torch.tensor([index]) for index in range(2)}
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: in_use)
        monkeypatch.setattr(torch.cuda, "get_rng_state", lambda gpu: states[getattr(gpu, "index", gpu)])
        monkeypatch.setattr(
            torch.cuda, "set_rng_state", lambda state, gpu: states.update({getattr(gpu, "index", gpu): state})
        )
        return states

    return make


def session(device: torch.device):  # type: ignore[no-untyped-def]
    return runtime.session(device, threads=1, deterministic=False, tf32=False)


@pytest.mark.parametrize("option", ["dropout=0.5", "dry_run=true"])
def test_a_run_on_the_cpu_touches_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: pytest.fail("CUDA is initialised"))
    monkeypatch.setattr(torch.random, "_fork_rng_warned_already", False)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*available devices")
        deepexp.train([*SMALL, "threads=1", "device=cpu", f"output_dir={tmp_path}", option], quiet=True)


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("mode", [
    lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    torch.no_grad,
    torch.inference_mode,
    lambda: default_dtype(torch.float64),
    lambda: torch.device("meta"),
], ids=["autocast", "no_grad", "inference_mode", "default_dtype", "default_device"])  # fmt: skip
def test_torch_modes_of_the_caller_do_not_change_results(
    tmp_path: Path, mode: Callable[[], contextlib.AbstractContextManager[object]]
) -> None:
    words = [*SMALL, "threads=1", "device=cpu", f"output_dir={tmp_path}"]
    alone = deepexp.train(words, quiet=True)
    with mode():
        inside = deepexp.train(words, quiet=True)
        assert inside is not None
        weights = inside.model.state_dict().values()
    assert alone is not None
    for inner, outer in zip(weights, alone.model.state_dict().values(), strict=True):
        assert inner.dtype == outer.dtype and torch.equal(inner, outer)
    assert (inside.test_loss, inside.metrics[-1]["train_loss"]) == (alone.test_loss, alone.metrics[-1]["train_loss"])


@pytest.mark.parametrize(("device", "in_use", "changed"), [
    (torch.device("cuda", 0), False, {1}),  # the run does not use GPU 1, so its generator is left alone
    (torch.device("cuda", 1), False, {0}),
    (torch.device("cpu"), False, {0, 1}),
    (torch.device("cuda", 0), True, set()),
    (torch.device("cpu"), True, set()),
], ids=str)  # fmt: skip
def test_random_generators_are_restored(
    gpus: Callable[..., Generators], device: torch.device, in_use: bool, changed: set[int]
) -> None:
    states, before = gpus(in_use=in_use), torch.get_rng_state()
    with session(device):
        torch.rand(3)
        states.update({index: torch.tensor([7]) for index in states})
    assert {index for index, state in states.items() if state.item() == 7} == changed
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("device", ["mps", "cpu"])
def test_the_generator_of_a_mac_is_restored(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    put_back = []
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda device: torch.tensor([1]))
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda state, device: put_back.append(state.item()))
    with session(torch.device(device)):
        assert not put_back
    assert put_back == [1]


@pytest.mark.gpu
def test_the_generator_of_a_gpu_is_restored() -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    device = torch.device("cuda", 0)
    before = torch.cuda.get_rng_state(device)
    with session(device):
        torch.manual_seed(3)
        torch.rand(3, device=device)
    assert torch.equal(torch.cuda.get_rng_state(device), before)


def test_threads_and_numeric_modes_are_set_and_restored() -> None:
    def modes() -> tuple[int, str, bool, bool]:
        backend = torch.backends.cudnn
        return (
            torch.get_num_threads(),
            torch.get_float32_matmul_precision(),
            backend.allow_tf32,
            backend.benchmark,
        )

    at_first = modes()
    try:
        torch.set_num_threads(2)
        torch.set_float32_matmul_precision("medium")
        for flag in (False, True):
            torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = flag
            before = modes()
            for tf32 in (False, True):
                with runtime.session(torch.device("cpu"), threads=1, deterministic=False, tf32=tf32):
                    assert modes() == (1, "high" if tf32 else "highest", tf32, True)
                assert modes() == before
    finally:
        torch.set_num_threads(at_first[0])
        torch.set_float32_matmul_precision(at_first[1])
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = at_first[2:]


ZEN_3, ZEN_4 = "fpu sse2 avx2 sha_ni", "fpu sse2 avx2 avx512f avx512_bf16"


@pytest.mark.parametrize(
    ("told", "precision", "is_said"),
    [
        (f"processor\t: 0\nflags\t\t: {ZEN_3}\nbugs\t\t: spectre_v1\n", "bf16", True),
        (f"processor\t: 0\nflags\t\t: {ZEN_4}\n", "bf16", False),
        (f"flags\t\t: {ZEN_3}\n", "fp32", False),
        ("Features\t: fp asimd sve\n", "bf16", False),  # ARM
    ],
)
def test_a_cpu_without_bfloat16_is_reported(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    told: str,
    precision: str,
    is_said: bool,
) -> None:
    (tmp_path / "cpuinfo").write_text(told)
    flags = runtime.cpu_flags(tmp_path / "cpuinfo")
    monkeypatch.setattr(runtime, "cpu_flags", lambda: flags)
    deepexp.train([*SMALL, "threads=1", "device=cpu", f"output_dir={tmp_path}", f"precision={precision}"], quiet=True)
    assert ("can only imitate bf16" in caplog.text) == is_said
    (log,) = tmp_path.glob("*/*/run.log")
    assert ("can only imitate bf16" in log.read_text()) == is_said


def test_without_cpuinfo_no_cpu_flags_are_known(tmp_path: Path) -> None:
    assert runtime.cpu_flags(tmp_path / "cpuinfo") == frozenset()


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize("asked", [False, True])
def test_deterministic_algorithms_in_a_session_and_afterwards(mode: int, asked: bool) -> None:
    """A caller's mode 1 only warns, and must be raised to 2 for `deterministic=true`."""
    torch.set_deterministic_debug_mode(mode)
    try:
        with runtime.session(torch.device("cpu"), threads=1, deterministic=asked, tf32=False):
            assert torch.get_deterministic_debug_mode() == (2 if asked else 0)
        assert torch.get_deterministic_debug_mode() == mode
    finally:
        torch.set_deterministic_debug_mode(0)
