"""A saved config may only name targets that are in YAML files of the package or of ./conf."""

import pytest

from deepexp import paths
from deepexp.errors import InputError
from deepexp.user_code import trust

BROKEN = {
    "no YAML": "a: [",
    "a date that there is not": "a: 2026-99-99\n_target_: mine.Never",
    "a number without digits": "a: !!int ''\n_target_: mine.Never",
    "another encoding": "ü: 1\n_target_: mine.Never".encode("latin-1"),
}


@pytest.fixture
def conf(tmp_path, monkeypatch):
    """A folder of the user's own beside the package's."""
    folder = tmp_path / "conf"
    folder.mkdir()
    (folder / "fine.yaml").write_text("model: {_target_: mine.Model, layers: [{_target_: mine.Layer}]}\n")
    monkeypatch.chdir(tmp_path)
    return folder


def test_only_targets_in_yaml_files_here_are_allowed(conf):
    trust.check_targets({"model": {"_target_": "mine.Model"}, "optim": {"_target_": "torch.optim.SGD"}})
    trust.check_targets([{"a": [{"_target_": "mine.Layer"}]}])
    with pytest.raises(InputError, match=r"_target_: 'os\.system' stands in the saved config, but in no YAML"):
        trust.check_targets({"model": {"_target_": "mine.Model"}, "a": [{"_target_": "os.system"}]})


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_allows_no_targets_and_does_no_harm(conf, content):
    (conf / "broken.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    trust.check_targets({"model": {"_target_": "mine.Model"}})
    with pytest.raises(InputError, match=r"'mine\.Never'"):
        trust.check_targets({"model": {"_target_": "mine.Never"}})


def test_files_are_read_once_for_all_targets(conf, monkeypatch):
    read = []
    whole = paths.conf_directories
    monkeypatch.setattr(paths, "conf_directories", lambda: read.append(1) or whole())
    trust.check_targets([{"_target_": "mine.Model"}, {"_target_": "mine.Layer"}])
    assert len(read) == 1
