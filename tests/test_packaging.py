"""A wheel, an sdist and an editable installation, each used from another folder."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

import deepexp
from deepexp import paths

ROOT = Path(__file__).resolve().parent.parent

# The build backend is installed already, so that nothing has to be downloaded.
INSTALL = ("install", "-q", "--no-deps", "--no-index", "--no-build-isolation")

# Called in a fresh environment: which files are used, and what Hydra finds.
PROBE = """
import deepexp, hydra_plugins.deepexp_plugins, json
from deepexp import paths
from deepexp.config.compose import compose
from hydra.core.plugins import Plugins
composed = compose(["optim=mine"])
print(json.dumps({
    "package": deepexp.__file__,
    "plugins": hydra_plugins.deepexp_plugins.__file__,
    "found": sorted(name for name in Plugins.instance().class_name_to_class if "deepexp_plugins" in name),
    "conf": str(paths.CONF_DIR),
    "speed": composed.config.optim.speed,
}))
"""


def run(*words, cwd, **environment):
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(wheel, sdist) of this working tree."""
    folder = tmp_path_factory.mktemp("built")
    code = "import sys, hatchling.build as b; print(b.build_wheel(sys.argv[1]), b.build_sdist(sys.argv[1]))"
    names = run(sys.executable, "-c", code, folder, cwd=ROOT).split()[-2:]
    return folder / names[0], folder / names[1]


def environment(folder):
    """The interpreter of a fresh environment that has the dependencies of this one, and not deepexp."""
    # If this environment has pip, it is among the shared dependencies: unpacking another takes half of the test's time.
    # PathFinder alone, because the finder of setuptools removes its distutils for good when pip is looked for.
    has_pip = PathFinder.find_spec("pip") is not None
    venv.create(folder, with_pip=not has_pip, symlinks=sys.platform != "win32")
    here = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    # Python reads no .pth files in folders named by a .pth, so an editable deepexp there is not found.
    Path(here, "dependencies.pth").write_text(
        "\n".join(dict.fromkeys(sysconfig.get_paths()[k] for k in ("purelib", "platlib")))
    )
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


@pytest.fixture
def user(tmp_path):
    """A user's working directory with an option in its conf."""
    folder = tmp_path / "somewhere else"
    (folder / "conf" / "optim").mkdir(parents=True)
    (folder / "conf" / "optim" / "mine.yaml").write_text("# Mine\n_target_: torch.optim.SGD\nspeed: 3\n")
    return folder


def check_installation(python, user):
    """Check that the commands and plugins work; returns which files are used."""
    command = python.parent / "deepexp"
    assert run(command, "--version", cwd=user) == f"deepexp {deepexp.__version__}\n"
    listed = run(command, "list", "optim", cwd=user)
    assert "adam " in listed
    assert "mine " in listed
    assert run(python, "-m", "deepexp", "train", "--help", cwd=user).startswith("usage: deepexp train")
    probe = json.loads(run(python, "-c", PROBE, cwd=user))
    assert probe["speed"] == 3
    assert "hydra_plugins.deepexp_plugins.UserConf" in probe["found"]
    return {name: Path(probe[name]) for name in ("package", "plugins", "conf")}


@pytest.mark.slow
def test_an_installation_from_a_wheel_works(built, user, tmp_path):
    python = environment(tmp_path / "wheel")
    run(python, "-m", "pip", *INSTALL, built[0], cwd=user)
    used = check_installation(python, user)
    for path in used.values():
        assert path.is_relative_to(tmp_path / "wheel")
    assert used["conf"] == used["package"].parent / "conf"


@pytest.mark.slow
def test_an_installation_from_an_sdist_works(built, user, tmp_path):
    python = environment(tmp_path / "sdist")
    run(python, "-m", "pip", *INSTALL, built[1], cwd=user)
    for path in check_installation(python, user).values():
        assert path.is_relative_to(tmp_path / "sdist")


@pytest.mark.slow
def test_an_editable_installation_works(user, tmp_path):
    python = environment(tmp_path / "editable")
    run(python, "-m", "pip", *INSTALL, "-e", ROOT, cwd=user)
    used = check_installation(python, user)
    assert used["package"].parent == ROOT / "deepexp"
    assert used["conf"] == ROOT / "conf"
    assert not (ROOT / "deepexp" / "conf").exists()


@pytest.mark.slow
def test_wheel_and_sdist_have_the_right_files(built):
    wheel, sdist = built
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"deepexp", "hydra_plugins"}
    packed = {name.removeprefix("deepexp/conf/") for name in names if name.startswith("deepexp/conf/")}
    assert packed == {path.relative_to(paths.CONF_DIR).as_posix() for path in paths.CONF_DIR.rglob("*.yaml")}
    assert "deepexp/py.typed" in names
    assert not any(name.startswith(("deepexp/plugins", "tests", "outputs")) for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    with tarfile.open(sdist) as archive:
        sources = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "conf/train.yaml", "deepexp/cli.py"} <= sources


def test_there_is_no_python_in_conf():
    """Hydra would take a conf with Python files for a package."""
    assert [path for path in paths.CONF_DIR.rglob("*") if path.is_file() and path.suffix != ".yaml"] == []


def test_ci_runs_the_readmes_own_test_command():
    """The script extracts the command from the README, so only its absence could be wrong."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (command,) = re.findall(r"^<!-- test command -->\n```\w*\n(.*?)\n```$", readme, flags=re.MULTILINE | re.DOTALL)
    assert "python3 -m venv .venv" in command
    assert "-m pytest" in command
    assert "pytest" not in re.sub(r"\*pytest\*", "", script)
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_readme_has_one_command_to_train_with():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^<!-- first command -->\n```\w*\n(.*?)\n```$", readme, flags=re.MULTILINE | re.DOTALL)
    assert command.startswith("python3 -m venv .venv")
    assert command.endswith("deepexp train model=monster optim=adam")
