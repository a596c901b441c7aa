"""The stand-in for torch's compiler, which imports the real one only when it is needed."""

import importlib
import subprocess
import sys
import textwrap
import threading

import pytest

from deepexp.process import late_dynamo

PACKAGE = {
    "__init__.py": """
        import time
        from . import exc, settings
        import late_loads
        late_loads.count += 1
        time.sleep(0.05)
        config = {}
        stops = []

        def graph_break(word=""):
            stops.append(word)

        def disable(function, recursive=True, wrapping=True):
            return lambda *arguments: ("hidden", function(*arguments))
        """,
    "exc.py": "import late_loads; late_loads.parts += 1",
    "settings.py": """
        import sys, types, late_loads
        late_loads.parts += 100

        class Closed(types.ModuleType):
            def __setattr__(self, name, value):
                raise AttributeError(name)

        sys.modules[__name__].__class__ = Closed
        """,
    "rare.py": "import late_loads; late_loads.parts += 10",
}


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A package that takes the place of the compiler; `late_loads.count` says how often it was loaded."""
    name = "late_compiler"
    (tmp_path / name).mkdir()
    for file, content in PACKAGE.items():
        (tmp_path / name / file).write_text(textwrap.dedent(content))
    (tmp_path / "late_loads.py").write_text("count = parts = 0")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(late_dynamo, "NAME", name)
    late_dynamo.install()
    late_dynamo.install()  # a second time changes nothing
    return name


def loads() -> int:
    return importlib.import_module("late_loads").count


def test_attributes_that_optimizers_use_do_not_load_the_compiler(compiler):
    module = importlib.import_module(compiler)
    doubled = module.disable(lambda x: 2 * x, True, wrapping=False)
    module.graph_break()
    assert doubled(3) == 6
    assert importlib.import_module(compiler) is module
    assert not hasattr(module, "__all__") and module.__file__.endswith("__init__.py")
    assert loads() == 0


def test_other_attributes_load_the_compiler_once(compiler):
    early = importlib.import_module(compiler)
    doubled = early.disable(lambda x: 2 * x)
    early.config["cache"] = 1
    real = importlib.import_module(compiler)
    assert real is not early and real.config == {"cache": 1} and early.config is real.config
    early.verbose = True
    early.graph_break("there")
    assert real.verbose is True and real.stops == ["there"]
    assert doubled(3) == ("hidden", 6) and early.disable(lambda: 1)() == ("hidden", 1)
    assert loads() == 1


@pytest.mark.parametrize("is_asked_first", [False, True])
@pytest.mark.parametrize("part", ["exc", "settings", "rare"])
def test_importing_a_submodule_loads_the_compiler_once(compiler, part, is_asked_first):
    if is_asked_first:
        importlib.import_module(compiler).graph_break()
    imported = importlib.import_module(f"{compiler}.{part}")
    real = importlib.import_module(compiler)
    assert loads() == 1 and real.stops == []
    assert getattr(real, part) is imported is sys.modules[f"{compiler}.{part}"]
    assert importlib.import_module("late_loads").parts == (111 if part == "rare" else 101)
    assert imported.__spec__.name == imported.__name__ and imported.__spec__.origin.endswith(f"{part}.py")


def test_threads_that_ask_at_once_load_the_compiler_once(compiler):
    early = importlib.import_module(compiler)
    seen = []
    threads = [threading.Thread(target=lambda: seen.append(early.config)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads() == 1 and len(seen) == 20 and all(config is seen[0] for config in seen)


def test_a_compiler_that_is_already_imported_stays(compiler, monkeypatch):
    real = sys.modules[compiler] = importlib.util.module_from_spec(importlib.util.find_spec("late_loads"))
    monkeypatch.setattr(sys, "meta_path", [])
    late_dynamo.install()
    assert sys.meta_path == [] and importlib.import_module(compiler) is real
    del sys.modules[compiler]


TRAINED = """
import sys, torch
from pathlib import Path
from deepexp import cli
from deepexp.process import late_dynamo
from deepexp.models import pretrained

torch.save({"features.0.weight": torch.randn(64, 3, 11, 11), "features.0.bias": torch.randn(64)}, "alexnet.pth")
pretrained.weights_file = lambda url: Path("alexnet.pth").absolute()
words = "device=cpu threads=1 data=synthetic data.train_samples=40 data.test_samples=20 batch_size=20 epochs=1".split()
for chosen in ("optim=sgd", "optim=adam", "model=monster"):
    assert cli.main(["train", *words, chosen]) == 0
assert isinstance(torch._dynamo, late_dynamo._StandIn) and "torch._dynamo.eval_frame" not in sys.modules
assert "torchvision" not in sys.modules  # which imports the compiler

@torch.compile(backend="eager")
def stepped(x):
    optimizer.zero_grad()
    (x * weight).sum().backward()
    optimizer.step()
    return 2 * weight

weight = torch.nn.Parameter(torch.ones(3))
optimizer = torch.optim.SGD([weight], lr=0.5)
assert torch.equal(stepped(torch.ones(3)), torch.ones(3))
optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})
optimizer.load_state_dict(optimizer.state_dict())
import torch._dynamo.config, torch._dynamo.exc
assert torch._dynamo is sys.modules["torch._dynamo"] and torch._dynamo.exc is sys.modules["torch._dynamo.exc"]
assert not isinstance(torch._dynamo, late_dynamo._StandIn) and issubclass(torch._dynamo.exc.Unsupported, Exception)
print("compiled")
"""


@pytest.mark.slow
def test_runs_do_not_load_the_compiler_but_torch_compile_does(tmp_path):
    done = subprocess.run([sys.executable, "-c", TRAINED], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and done.stdout.endswith("compiled\n"), done.stderr
