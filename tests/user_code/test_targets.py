"""Targets are found in modules beside `./conf`, and a failed import is reported with its line."""

import importlib
import subprocess
import sys

import pytest

from deepexp.user_code import targets

MODULES = {
    "their_fine.py": "class Net:\n    kind = 1\n",
    "their_missing.py": "import math\nimport no_such_module\n",
    "their_typo.py": "class Net\n",
    "their_error.py": "def f():\n    return 1 / 0\n\nf()\n",
    "their_json.py": "import json\njson.loads('x')\n",
    "their_package/__init__.py": "",
    "their_package/net.py": "import no_such_module\n",
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    for name, text in MODULES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    return tmp_path


def test_a_module_beside_conf_is_found(here):
    assert targets.find("their_fine.Net").__name__ == "Net"
    assert targets.find("torch.nn.Linear").__name__ == "Linear"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("their_nothing.Net", "no module 'their_nothing' is here or installed"),
        ("their_fine.Nett", "their_fine has no 'Nett'"),
        ("their_package.nothing.Net", "their_package has no 'nothing'"),
        ("their_missing.Net", "their_missing.py:2: ModuleNotFoundError: No module named 'no_such_module'"),
        ("their_package.net.Net", "their_package/net.py:1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("their_typo.Net", "their_typo.py:1: SyntaxError: expected ':'"),
        ("their_fine", "it is a module, and a class or function is needed"),
        ("their_fine.Net.kind", "it is an int, and a class or function is needed"),
        ("their_error.Net", "their_error.py:2: ZeroDivisionError: division by zero"),
        ("their_json.Net", "their_json.py:2: JSONDecodeError: Expecting value: line 1 column 1 (char 0)"),
    ],
)
def test_a_failed_import_has_a_reason_in_one_line(here, caplog, name, reason):
    with pytest.raises(ImportError) as caught:
        targets.find(name)
    assert str(caught.value) == reason and not caplog.text


def test_a_changed_module_is_refused_until_it_is_reloaded(here):
    """As in a notebook, where modules stay imported."""
    targets.find("their_fine.Net")
    targets.find("their_fine.Net")
    path = here / "their_fine.py"
    path.write_text("class Net:\n    kind = 'another'\n")
    for _ in range(2):
        with pytest.raises(ImportError, match=r"their_fine.py has changed since it was imported; .*importlib.reload"):
            targets.find("their_fine.Net")
    importlib.reload(sys.modules["their_fine"])
    assert targets.find("their_fine.Net").kind == "another"


def test_a_module_imported_from_another_folder_is_refused(here, monkeypatch):
    targets.find("their_fine.Net")
    other = here / "other"
    other.mkdir()
    (other / "their_fine.py").write_text(MODULES["their_fine.py"])
    monkeypatch.chdir(other)
    for _ in range(2):
        with pytest.raises(ImportError, match=f"imported as {here / 'their_fine.py'} before, and here it is {other}"):
            targets.find("their_fine.Net")
        (here / "their_fine.py").unlink(missing_ok=True)


def test_load_run_finds_a_users_model_in_the_working_directory(tmp_path):
    """In a process that has composed no config, and whose script is elsewhere."""
    quick = "from deepexp.process import late_dynamo; late_dynamo.install()"  # importing torch's compiler takes seconds
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "their_net.py").write_text("from deepexp.models.mnist_net import MnistNet as Net\n")
    (tmp_path / "conf" / "model" / "theirs.yaml").write_text(
        "_target_: their_net.Net\ninput: {channels: 1, height: 28, width: 28}\n"
    )
    train = "import deepexp; r = deepexp.train(['model=theirs', 'epochs=1', 'data.subset=100'], quiet=True)"
    load = "import sys, deepexp; print(type(deepexp.load_run(sys.argv[1]).model).__name__)"
    path = subprocess.run(
        [sys.executable, "-P", "-c", f"{quick}; {train}; print(r.directory)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()[-1]
    load = [sys.executable, "-P", "-c", f"{quick}; {load}", path]
    done = subprocess.run(load, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ["MnistNet"], done.stderr
