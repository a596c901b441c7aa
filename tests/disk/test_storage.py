import contextlib
import errno
import os
import re
import stat
from pathlib import Path

import pytest

from deepexp.disk import storage
from deepexp.disk.storage import (
    AppendFile,
    make_directory,
    place_that_stays,
    put_new,
    storage_errors,
    write_atomically,
)
from deepexp.errors import InputError, RunFailed


def raise_no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_write_atomically_replaces_and_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "status.json"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("refusals", "expected"), [(2, b"new"), (3, b"old")])
def test_a_file_that_windows_does_not_replace_while_it_is_read_is_replaced_later(
    tmp_path, monkeypatch, refusals, expected
):
    path = tmp_path / "status.json"
    write_atomically(path, b"old")
    replace, left = Path.replace, [None] * refusals

    def refuse(self, target):
        if left:
            left.pop()
            raise PermissionError(13, "Permission denied")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr(storage, "_TRIES", 3)
    with contextlib.nullcontext() if expected == b"new" else pytest.raises(RunFailed):
        write_atomically(path, b"new")
    assert path.read_bytes() == expected


def test_write_atomically_syncs_the_content_before_the_name(tmp_path, monkeypatch):
    """In any other order, a loss of power could leave an empty file under the final name."""
    done = []
    fsync, replace = os.fsync, Path.replace

    def recorded_fsync(descriptor):
        is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        done.append("fsync directory" if is_directory else "fsync file")
        fsync(descriptor)

    def recorded_replace(self, target):
        done.append("replace")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    write_atomically(tmp_path / "summary.json", b"{}")
    assert done == ["fsync file", "replace", "fsync directory"]


@pytest.mark.parametrize("has_links", [True, False])
def test_put_new_never_replaces_an_existing_file(tmp_path, monkeypatch, has_links):
    source, target = tmp_path / "made", tmp_path / "to"
    source.write_text("new")
    if not has_links:
        monkeypatch.setattr(os, "link", raise_no_space)
    target.write_text("old")
    with pytest.raises(FileExistsError):
        put_new(source, target)
    assert target.read_text() == "old" and source.read_text() == "new"
    target.unlink()
    put_new(source, target)
    assert target.read_text() == "new" and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(("of_directory", "number", "fails"), [
    (True, errno.EINVAL, False), (True, errno.ENOTSUP, False), (True, errno.EIO, True), (True, errno.ENOSPC, True),
    (False, errno.EINVAL, True), (False, errno.ENOTSUP, True),
])  # fmt: skip
def test_only_directories_may_refuse_to_be_synced(tmp_path, monkeypatch, of_directory, number, fails):
    fsync = os.fsync

    def refuse(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == of_directory:
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    path = tmp_path / "status.json"
    with pytest.raises(RunFailed) if fails else contextlib.nullcontext():
        write_atomically(path, b"{}")
    if not fails:
        AppendFile(tmp_path / "log").close()
        make_directory(tmp_path / "a" / "b")
        assert path.read_bytes() == b"{}"


def test_ctrl_c_while_writing_leaves_no_temporary_file(tmp_path, monkeypatch):
    """A leftover would make `eval to=DIR` refuse the folder next time, as it is not empty."""

    def interrupt(descriptor):
        raise KeyboardInterrupt

    path = tmp_path / "answers.csv"
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="needs fcntl")
@pytest.mark.parametrize("has_full_sync", [True, False])
def test_on_macos_the_cache_of_the_drive_is_emptied_too_where_that_can_be_done(tmp_path, monkeypatch, has_full_sync):
    import fcntl

    done, fsync = [], os.fsync

    def recorded(descriptor, command):
        done.append(command)
        if not has_full_sync:
            raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", recorded)
    monkeypatch.setattr(os, "fsync", lambda descriptor: (done.append("fsync"), fsync(descriptor)))
    write_atomically(tmp_path / "x", b"new")
    assert done == ([51, 51] if has_full_sync else [51, "fsync", 51, "fsync"])  # the file, its folder


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace"])
def test_a_full_disk_leaves_the_old_file_alone(tmp_path, monkeypatch, call):
    path = tmp_path / "status.json"
    write_atomically(path, b"old")
    monkeypatch.setattr(call, raise_no_space)
    with pytest.raises(RunFailed, match=r"status\.json: No space left on device \([\d,.]+ MB free"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "chosen_by_user", "expected"),
    [
        (errno.EROFS, True, InputError),
        (errno.EACCES, True, InputError),
        (errno.ENOTDIR, True, InputError),
        (errno.ENOSPC, True, RunFailed),
        (errno.EROFS, False, RunFailed),
        (errno.EIO, False, RunFailed),
    ],
)
def test_only_errors_of_a_place_that_the_user_chose_are_input_errors(tmp_path, number, chosen_by_user, expected):
    with (
        pytest.raises(expected, match=re.escape(os.strerror(number))) as caught,
        storage_errors(tmp_path / "a b", chosen_by_user=chosen_by_user),
    ):
        raise OSError(number, os.strerror(number))
    assert str(tmp_path / "a b") in str(caught.value)
    assert "output_dir=DIR" in str(caught.value)


@pytest.mark.parametrize(("number", "told"), [
    (errno.ENOSPC, r" \([\d,.]+ MB free there\); make room there"),
    (errno.EROFS, "; make it writable, or work in a copy elsewhere"),
    (errno.EACCES, "; make it writable, or work in a copy elsewhere"),
    (errno.EBUSY, ""),
])  # fmt: skip
def test_without_an_option_no_other_place_is_advised(tmp_path, number, told):
    reason = os.strerror(number)
    with pytest.raises(RunFailed, match=f": {reason}{told}$"), storage_errors(tmp_path, option=None):
        raise OSError(number, os.strerror(number))


def test_a_folder_removed_during_the_run_is_named(tmp_path):
    with pytest.raises(RunFailed, match=r"status\.json: its folder was removed during the run"):
        write_atomically(tmp_path / "gone" / "status.json", b"")


def test_append_file_continues_and_can_be_cut_back(tmp_path):
    file = AppendFile(tmp_path / "log")
    file.write(b"one\n")
    offset = file.offset()
    file.write(b"two\n")
    file.cut_back(offset)
    file.write(b"three\n")
    file.close()
    again = AppendFile(tmp_path / "log")
    assert again.offset() == len(b"one\nthree\n")
    again.write(b"four\n")
    again.close()
    assert (tmp_path / "log").read_bytes() == b"one\nthree\nfour\n"


def test_the_name_of_an_append_file_is_durable_once_it_is_made(tmp_path, monkeypatch):
    """Only syncing the folder makes it so: otherwise a loss of power could remove a whole ledger."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode)))
    for expected in ([True], []):
        file = AppendFile(tmp_path / "log")
        assert synced == expected
        file.close()
        synced.clear()


def test_cutting_back_never_lengthens_a_file(tmp_path):
    file = AppendFile(tmp_path / "log")
    file.write(b"one")
    with pytest.raises(InputError, match="has 3 bytes but had 4"):
        file.cut_back(4)
    assert file.offset() == 3
    file.close()


def test_a_record_torn_by_a_full_disk_is_cut_off(tmp_path, monkeypatch):
    file = AppendFile(tmp_path / "log")
    file.write(b"whole\n")
    write = os.write
    room = [4]

    def until_full(descriptor, data):
        if not room:
            raise_no_space()
        return write(descriptor, bytes(data)[: room.pop()])

    monkeypatch.setattr(os, "write", until_full)
    with pytest.raises(RunFailed, match="No space left"):
        file.write(b"another\n")
    monkeypatch.undo()
    assert (tmp_path / "log").read_bytes() == b"whole\n"
    file.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that only Linux has")
def test_a_really_full_device_is_reported():
    file = AppendFile(Path("/dev/full"))
    with pytest.raises(RunFailed, match="/dev/full: No space left on device"):
        file.write(b"x")
    file.close()


def test_no_other_place_is_advised_for_a_resumed_run(tmp_path):
    with pytest.raises(RunFailed, match=r"; make room there$"), place_that_stays(), storage_errors(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(RunFailed, match=r"with to=DIR$"), place_that_stays(), storage_errors(tmp_path, option="to=DIR"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(RunFailed, match=r"with output_dir=DIR$"), storage_errors(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
