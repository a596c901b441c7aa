"""What many tests share: a quiet run in a folder of its own, and the real data where they are."""

import gc
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import settings

# Before torch is imported, here and in the processes that tests start: threads that wait for each other on a busy
# machine would make the times of tests unpredictable.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

import deepexp
from deepexp import cuda_graph
from deepexp.models import onednn
from deepexp.optim import capturable
from deepexp.result import Result

from .tape import Tape

Run = Callable[..., Result]

# Hypothesis fails an example that takes 0.2 s, which any does on a busy machine.
settings.register_profile("without a deadline", deadline=None)
settings.load_profile("without a deadline")


def pytest_collection_finish() -> None:
    """Exempt imported modules and collected tests from garbage collection: they stay until the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def forgotten_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Forget the modules that a test has imported from its own folder."""
    before = set(sys.modules)
    yield
    folders = str(tmp_path_factory.getbasetemp())
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(folders):
            del sys.modules[name]
    sys.path[:] = [place for place in sys.path if not place.startswith(folders)]  # monkeypatch may have put it back


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Trains with the given overrides, on one thread, into the test's own folder, and returns the result."""

    def train(overrides: Sequence[str] = (), folder: str = "outputs") -> Result:
        result = deepexp.train(["threads=1", "device=cpu", f"output_dir={tmp_path / folder}", *overrides], quiet=True)
        assert result is not None
        return result

    return train


@pytest.fixture(scope="module")
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of the module's `WORDS`, for all of its tests."""
    result = deepexp.train([*request.module.WORDS, f"output_dir={tmp_path_factory.mktemp('outputs')}"], quiet=True)
    assert result is not None
    return result.directory


@pytest.fixture
def directory(trained: Path, tmp_path: Path) -> Path:
    """A copy of `trained`, for a test that changes it."""
    return shutil.copytree(trained, tmp_path / "outputs" / "mnist_net" / "run")


@pytest.fixture
def default_signals() -> Iterator[None]:
    """SIGHUP and SIGINT have their default effects, also in child processes, where `nohup` or `&` has them ignored."""
    effects = {signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, effect) for number, effect in effects.items()}
    yield
    for number, effect in before.items():
        signal.signal(number, effect)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with MNIST/raw, from DEEPEXP_DATA; the test is skipped without it."""
    root = os.environ.get("DEEPEXP_DATA")
    if not root or not (Path(root) / "MNIST" / "raw").is_dir():
        pytest.skip("real MNIST is not here; set DEEPEXP_DATA to the folder that holds MNIST/raw")
    return Path(root)


@pytest.fixture
def graph(monkeypatch: pytest.MonkeyPatch) -> Callable[[Tape], Tape]:
    """Have runs on the CPU use this recorder."""

    def use(tape: Tape) -> Tape:
        on_cpu = {"fused": True}  # torch has capturable steps on GPUs only
        optimizers = dict.fromkeys((torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW), on_cpu)
        monkeypatch.setattr(capturable, "REPLAYED", optimizers)
        monkeypatch.setattr(cuda_graph, "can_record", lambda device: True)
        monkeypatch.setattr(cuda_graph, "make_recorder", lambda device: tape)
        monkeypatch.setattr(onednn, "pays", lambda x: False)  # a tape has no place for tensors without strides
        return tape

    return use
