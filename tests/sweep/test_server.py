"""Which modules the server of the jobs imports before it forks the first one."""

import json
import platform
import subprocess
import sys
import textwrap

import pytest

from deepexp.sweep import server

LOOKING = """
import json, multiprocessing, os, sys
from deepexp.sweep import server

def look(pipe):
    pipe.send(sorted(sys.modules))

if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    import looking
    server.start(sys.argv[1:])
    ours, theirs = multiprocessing.Pipe()
    server.context().Process(target=looking.look, args=(theirs,)).start()
    print(json.dumps(ours.recv()))
"""


@pytest.mark.parametrize(
    ("words", "modules"),
    [
        (["-m", "optim=adam", "seed=1,2"], []),
        (["-m", "model=torchvision", "model.name=resnet18"], ["deepexp.models.torchvision_model"]),
        (["-m", "model=resnet,torchvision"], ["deepexp.models.torchvision_model"]),
        (["-m", "model=timm", "model.name=test_vit"], ["timm"]),
        (["-m", "compile=True,false"], ["torch._dynamo.config"]),
        (["-m", "compile=false", "deterministic=false"], []),
        (["-m", "deterministic=true"], ["torch._inductor.config"]),
    ],
)
def test_modules_to_import_are_chosen_by_the_words(words, modules):
    assert server._asked_for(words) == modules


def test_a_resumed_sweep_imports_the_same_modules(tmp_path):
    sweep = tmp_path / "it's"
    sweep.mkdir()
    (sweep / "sweep.json").write_text(json.dumps({"overrides": ["model=torchvision", "seed=0,1"]}))
    assert server._asked_for([f"resume={sweep}"]) == ["deepexp.models.torchvision_model"]
    for content in ("", "[]", "{}", '{"overrides": 3}'):
        (sweep / "sweep.json").write_text(content)
        assert server._asked_for([f"resume={sweep}", "compile=true"]) == ["torch._dynamo.config"]


@pytest.mark.skipif(platform.system() != "Linux", reason="jobs are forked from a server on Linux only")
@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("seed=1,2", set()),
        ("model=torchvision", {"torchvision", "torch._dynamo.eval_frame"}),
        ("compile=true", {"torch._dynamo.eval_frame"}),
        ("deterministic=true", {"torch._dynamo.eval_frame", "torch._inductor.config"}),
    ],
)
def test_jobs_find_these_modules_imported(word, found, tmp_path):
    (tmp_path / "looking.py").write_text(textwrap.dedent(LOOKING))
    done = subprocess.run(
        [sys.executable, "looking.py", "-m", word], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    there = set(json.loads(done.stdout))
    assert "torch" in there and "deepexp.sweep.worker" in there
    assert found <= there and (word != "seed=1,2" or not {"torchvision", "torch._dynamo.eval_frame"} & there)
