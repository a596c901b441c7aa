import hashlib
import socket
import threading
import time
from pathlib import Path

import pytest

from deepexp.data import download
from deepexp.errors import InputError

from .conftest import Served

CONTENT = bytes(range(256)) * 4000
MD5 = hashlib.md5(CONTENT).hexdigest()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


def test_a_file_is_downloaded_whole(server: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.files["set.bin"] = CONTENT
    download.fetch(tmp_path / "new" / "set.bin", [server.url + "set.bin"], MD5, "Set")
    assert (tmp_path / "new" / "set.bin").read_bytes() == CONTENT
    assert names(tmp_path / "new") == {"set.bin"}
    assert "Set: set.bin" in capsys.readouterr().err  # progress


def test_an_existing_file_is_not_downloaded_again(server: Served, tmp_path: Path) -> None:
    (tmp_path / "set.bin").write_bytes(b"mine")
    download.fetch(tmp_path / "set.bin", [server.url + "set.bin"], MD5, "Set")
    assert (tmp_path / "set.bin").read_bytes() == b"mine" and not server.requests


def test_second_mirror_is_tried(server: Served, tmp_path: Path) -> None:
    server.files["b/set.bin"] = CONTENT
    urls = [server.url + "a/set.bin", server.url + "b/set.bin"]
    download.fetch(tmp_path / "set.bin", urls, MD5, "Set")
    assert server.requests == ["a/set.bin", "b/set.bin"]
    assert (tmp_path / "set.bin").read_bytes() == CONTENT


def test_wrong_content_is_refused_and_leaves_no_file(server: Served, tmp_path: Path) -> None:
    server.files["set.bin"] = CONTENT[:-1] + b"x"
    with pytest.raises(InputError, match=f"set.bin is missing.*not the published file .MD5 .* instead of {MD5}"):
        download.fetch(tmp_path / "set.bin", [server.url + "set.bin"], MD5, "Set")
    assert names(tmp_path) == set()


def test_a_folder_made_for_a_failed_download_is_removed(server: Served, tmp_path: Path) -> None:
    """Its name may be a typing error. Folders that were there before stay."""
    (tmp_path / "mine").mkdir()
    for folder in (tmp_path / "typo" / "MNIST" / "raw", tmp_path / "mine"):
        with pytest.raises(InputError, match="is missing"):
            download.fetch(folder / "set.bin", [server.url + "set.bin"], MD5, "Set")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"] and not list((tmp_path / "mine").iterdir())


def test_a_folder_with_files_of_others_is_kept_after_a_failed_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "new" / "raw"

    def fails(path: Path, *_: object) -> None:
        (path.parent.parent / "other.bin").write_bytes(b"theirs")
        raise InputError("no")

    monkeypatch.setattr(download, "_download", fails)
    with pytest.raises(InputError, match="no"):
        download.fetch(folder / "set.bin", [], MD5, "Set")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["other.bin"]


def test_a_broken_connection_leaves_no_file(server: Served, tmp_path: Path) -> None:
    server.files["set.bin"] = CONTENT
    server.break_after = len(CONTENT) // 2
    with pytest.raises(InputError, match=r"set\.bin is missing, and downloading it failed"):
        download.fetch(tmp_path / "set.bin", [server.url + "set.bin"], MD5, "Set")
    assert names(tmp_path) == set()


def test_the_message_without_a_server_names_file_place_and_remedy(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/set.bin"
    began = time.perf_counter()
    with pytest.raises(InputError) as caught:
        download.fetch(tmp_path / "set.bin", [url], MD5, "Set")
    assert time.perf_counter() - began < 5
    for part in (str(tmp_path / "set.bin"), url, "refused", "data.root", "data=digits"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_does_not_answer_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/set.bin"
        with pytest.raises(InputError, match="timed out"):
            download.fetch(tmp_path / "set.bin", [url], MD5, "Set")
    assert download._TIMEOUT_SECONDS < 10


def test_threads_that_ask_at_once_download_once(server: Served, tmp_path: Path) -> None:
    server.files["set.bin"] = CONTENT
    arguments = (tmp_path / "set.bin", [server.url + "set.bin"], MD5, "Set")
    threads = [threading.Thread(target=download.fetch, args=arguments) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.requests == ["set.bin"]
    assert (tmp_path / "set.bin").read_bytes() == CONTENT


def test_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/raw/set.bin is missing, and cannot be written there .*data\.root"):
        download.fetch(tmp_path / "file" / "raw" / "set.bin", ["http://127.0.0.1:1/"], MD5, "Set")


def test_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"data\.root: .*file is a file"):
        download.check_root(tmp_path / "file")
    download.check_root(tmp_path)
    download.check_root(tmp_path / "absent")
