import sys
from pathlib import Path

import pytest

from deepexp import paths


def test_conf_inside_the_package_comes_before_the_one_beside_it(tmp_path):
    package = tmp_path / "deepexp"
    (tmp_path / "conf").mkdir()
    package.mkdir()
    assert paths.find_conf_dir(package) == tmp_path / "conf"
    (package / "conf").mkdir()
    assert paths.find_conf_dir(package) == package / "conf"


def test_the_package_has_its_conf():
    assert (paths.CONF_DIR / "train.yaml").is_file()


def test_the_users_conf_is_the_one_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert paths.user_conf_dir() is None
    assert paths.conf_directories() == [paths.CONF_DIR]
    (tmp_path / "conf").mkdir()
    assert paths.user_conf_dir() == tmp_path / "conf"
    assert paths.conf_directories() == [paths.CONF_DIR, tmp_path / "conf"]


def test_a_file_called_conf_is_ignored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").write_text("")
    assert paths.user_conf_dir() is None


def test_the_packages_own_conf_is_not_the_users(tmp_path, monkeypatch):
    monkeypatch.chdir(paths.CONF_DIR.parent)
    assert paths.user_conf_dir() is None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").symlink_to(paths.CONF_DIR)
    assert paths.user_conf_dir() is None


def test_the_working_directory_is_appended_to_the_import_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["/first", "/second"])
    paths.make_working_directory_importable()
    paths.make_working_directory_importable()
    assert sys.path == ["/first", "/second", str(tmp_path)]


def test_an_importable_working_directory_is_not_added_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", "/second"])
    paths.make_working_directory_importable()
    assert sys.path == ["", "/second"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not remove a folder that is in use")
def test_a_removed_working_directory_does_no_harm(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    monkeypatch.setattr(sys, "path", ["/first"])
    gone.rmdir()
    paths.make_working_directory_importable()
    assert sys.path == ["/first"]
    assert paths.user_conf_dir() is None
    assert paths.shown(Path("/a/b")) == str(Path("/a/b"))


def test_paths_below_the_working_directory_are_shown_relative_to_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert paths.shown(tmp_path / "conf" / "x.yaml") == str(Path("conf/x.yaml"))
    assert paths.shown(Path("/elsewhere/x.yaml")) == str(Path("/elsewhere/x.yaml"))
