import platform
import subprocess
import time

import pytest
import torch

from deepexp.run import provenance
from deepexp.run.rundir import HydraFiles, RunDirectory


def git(directory, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(["git", *identity, *arguments], cwd=directory, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    git(tmp_path, "init", "--quiet")
    (tmp_path / "mine.py").write_text("a = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    return tmp_path


def test_versions_are_those_installed():
    found = provenance.versions()
    assert found["python"] == platform.python_version()
    assert found["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert set(found) >= {"deepexp", "torchvision", "hydra-core"}


def test_commit_and_diff_of_a_checkout_are_recorded(checkout):
    (checkout / "sub").mkdir()
    clean = provenance.git_state(checkout / "sub")
    assert clean["commit"] == git(checkout, "rev-parse", "HEAD")
    assert (clean["diff"], clean["diff_is_cut"]) == ("", False)
    (checkout / "mine.py").write_text("a = 'ü'\n")
    assert "-a = 1\n+a = 'ü'\n" in provenance.git_state(checkout / "sub")["diff"]


def test_a_checkout_without_a_commit_has_no_diff(tmp_path):
    git(tmp_path, "init", "--quiet")
    state = provenance.git_state(tmp_path)
    assert (state["commit"], state["diff"]) == (None, None)


def test_there_is_no_git_state_outside_a_checkout_or_without_git(tmp_path, checkout, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    assert provenance.git_state(tmp_path / "elsewhere") is None
    monkeypatch.setenv("PATH", "")
    assert provenance.git_state(checkout) is None


def test_a_huge_diff_is_cut(checkout, monkeypatch):
    monkeypatch.setattr(provenance, "_DIFF_BYTES", 1000)
    (checkout / "mine.py").write_text("b = 2\n" * 100_000)
    state = provenance.git_state(checkout)
    assert state["diff_is_cut"]
    assert len(state["diff"]) == 1000


def test_a_git_that_hangs_times_out(tmp_path, monkeypatch):
    (tmp_path / "git").write_text("#!/bin/sh\nexec sleep 30\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(provenance, "_GIT_SECONDS", 0.2)
    began = time.monotonic()
    assert provenance.git_state(tmp_path) is None
    assert time.monotonic() - began < 10


def test_a_repository_cannot_make_git_run_programs(checkout):
    trap = checkout / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {checkout}/sprung\n")
    trap.chmod(0o755)
    for key in ("diff.external", "core.fsmonitor", "diff.t.textconv"):
        git(checkout, "config", key, str(trap))
    (checkout / ".gitattributes").write_text("*.py diff=t\n")
    (checkout / "mine.py").write_text("a = 2\n")
    subprocess.run(["git", "diff"], cwd=checkout, check=False, capture_output=True)
    assert (checkout / "sprung").exists(), "the trap does not work"
    (checkout / "sprung").unlink()
    assert "+a = 2" in provenance.git_state(checkout)["diff"]
    assert not (checkout / "sprung").exists()


def test_what_is_collected_can_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["deepexp", "train", "data.root=a b"])
    run = RunDirectory.create(tmp_path, "net", HydraFiles("", "", ""))
    content = provenance.collect(
        device="cpu (2 threads)",
        data_fingerprint="abc",
        test_data_fingerprint="def",
        pretrained="random",
        pretrained_sha256=None,
        code={},
        choices={"data.mode": "resident"},
    )
    run.write_json("provenance.json", content)
    found = run.read_json("provenance.json")
    assert found["command_line"] == "deepexp train 'data.root=a b'"
    assert found["choices"] == {"data.mode": "resident"}
    assert [found[key] for key in ("data_fingerprint", "test_data_fingerprint")] == ["abc", "def"]
    assert found["pretrained"] == "random"
    run.unlock()
