import contextlib
import hashlib
import http.server
import logging
import os
import pickle
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision

from deepexp.errors import InputError
from deepexp.models import pretrained


def first_layer() -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    return {"features.0.weight": torch.randn(64, 3, 11, 11), "features.0.bias": torch.randn(64)}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch.hub's cache, empty and the test's own."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A file with AlexNet's first layer; its name has the first digits of its SHA-256."""
    folder = tmp_path / "published"
    folder.mkdir()
    torch.save(first_layer(), folder / "new")
    digest = hashlib.sha256((folder / "new").read_bytes()).hexdigest()
    return (folder / "new").rename(folder / f"alexnet-owt-{digest[:8]}.pth")


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """Serves the files of a folder on the loopback interface."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments) -> None:
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *arguments) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def nowhere(name: str = "alexnet-owt-0123abcd.pth") -> str:
    """A URL with a closed port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/{name}"


def test_weights_are_downloaded_once_and_then_taken_from_the_cache(published: Path, cache: Path):
    with server(published.parent) as address:
        path = pretrained.weights_file(f"{address}/{published.name}")
        assert path == cache / published.name
        assert path.read_bytes() == published.read_bytes()
        url = f"{address}/{published.name}"

    assert pretrained.weights_file(url) == path  # the server is gone


def test_a_download_with_another_checksum_is_refused_and_leaves_nothing(published: Path, cache: Path):
    wrong = published.rename(published.with_name("alexnet-owt-00000000.pth"))

    with server(wrong.parent) as address, pytest.raises(InputError, match="invalid hash value"):
        pretrained.weights_file(f"{address}/{wrong.name}")

    assert list(cache.iterdir()) == []


def test_a_damaged_file_in_the_cache_is_named(published: Path, cache: Path):
    cache.mkdir(parents=True)
    (cache / published.name).write_bytes(published.read_bytes()[:-1])

    with pytest.raises(InputError, match=f"{published.name} is damaged .*delete it"):
        pretrained.weights_file(f"http://127.0.0.1/{published.name}")


def test_a_changed_file_is_checked_again(published: Path, cache: Path):
    cache.mkdir(parents=True)
    kept = cache / published.name
    kept.write_bytes(published.read_bytes())
    assert pretrained.weights_file(f"http://127.0.0.1/{kept.name}") == kept
    kept.write_bytes(published.read_bytes()[:-1] + b"?")
    os.utime(kept, ns=(0, kept.stat().st_mtime_ns + 10_000_000))  # some file systems count time in such steps

    with pytest.raises(InputError, match="damaged"):
        pretrained.weights_file(f"http://127.0.0.1/{kept.name}")


def test_without_a_network_the_error_says_what_is_missing_and_where(cache: Path):
    url = nowhere()

    with pytest.raises(InputError) as caught:
        pretrained.weights_file(url)

    message = str(caught.value)
    assert str(cache / "alexnet-owt-0123abcd.pth") in message
    assert url in message
    assert "refused" in message.lower()
    assert "model.pretrained=false" in message


def test_a_file_missing_on_the_server_is_an_error(published: Path):
    with server(published.parent) as address, pytest.raises(InputError, match="404"):
        pretrained.weights_file(f"{address}/alexnet-owt-0123abcd.pth")


def test_a_server_that_never_answers_times_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pretrained, "_TIMEOUT_SECONDS", 0.2)
    before = socket.getdefaulttimeout()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(InputError, match="timed out"):
            pretrained.weights_file(f"http://127.0.0.1:{silent.getsockname()[1]}/alexnet-owt-0123abcd.pth")

    assert time.monotonic() - began < 5
    assert socket.getdefaulttimeout() == before


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path: Path):
    (tmp_path / "hub").write_text("a file where the folder should be")

    with pytest.raises(InputError, match=r"alexnet-owt-0123abcd\.pth is missing"):
        pretrained.weights_file(nowhere())


def test_the_published_weights_are_those_of_torchvision():
    assert torchvision.models.AlexNet_Weights.IMAGENET1K_V1.url == pretrained.ALEXNET_URL
    assert pretrained._digest_in(pretrained.cached_file(pretrained.ALEXNET_URL).name) == "7be5be79"


def test_auto_takes_weights_that_are_available(published: Path, monkeypatch: pytest.MonkeyPatch):
    with server(published.parent) as address:
        monkeypatch.setattr(pretrained, "ALEXNET_URL", f"{address}/{published.name}")
        assert pretrained.resolve("auto") is True
        layer = pretrained.alexnet_first_layer(True)

    expected = first_layer()
    assert torch.equal(layer["weight"], expected["features.0.weight"])
    assert torch.equal(layer["bias"], expected["features.0.bias"])


def test_auto_falls_back_with_a_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(pretrained, "ALEXNET_URL", nowhere())

    with caplog.at_level(logging.WARNING):
        assert pretrained.resolve("auto") is False

    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "random" in record.getMessage()
    assert "alexnet-owt-0123abcd.pth" in record.getMessage()


def test_true_fails_without_the_weights(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pretrained, "ALEXNET_URL", nowhere())

    with pytest.raises(InputError, match="downloading it from"):
        pretrained.resolve(True)


def test_false_looks_for_no_weights(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pretrained, "weights_file", lambda url: pytest.fail("looked for weights"))

    assert pretrained.resolve(False) is False


def test_a_path_becomes_absolute(published: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(published.parent)

    assert pretrained.resolve(published.name) == str(published)


def test_the_layer_can_come_from_a_run(tmp_path: Path):
    checkpoint = tmp_path / "run" / "checkpoints" / "last.pt"
    checkpoint.parent.mkdir(parents=True)
    torch.save({"format": 1, "model": first_layer(), "epoch": 3}, checkpoint)
    with checkpoint.open("ab") as file:
        file.write(b"\ndeepexp-sha256:" + b"0" * 64 + b"\n")  # runs end their checkpoints with a digest

    for path in (tmp_path / "run", checkpoint):
        layer = pretrained.alexnet_first_layer(str(path))
        assert torch.equal(layer["weight"], first_layer()["features.0.weight"])


def test_the_layer_of_a_run_with_averaged_weights_is_the_averaged_one(tmp_path: Path):
    averages = {name: value / 2 for name, value in first_layer().items()}
    content = {"format": 1, "model": first_layer(), "ema": {"updates": 1, "averages": averages}}
    torch.save(content, tmp_path / "last.pt")

    layer = pretrained.alexnet_first_layer(str(tmp_path / "last.pt"))

    assert torch.equal(layer["weight"], averages["features.0.weight"])


def test_the_layer_can_come_from_a_run_of_torchvisions_alexnet(tmp_path: Path):
    torch.save({"model": {f"network.{name}": value for name, value in first_layer().items()}}, tmp_path / "last.pt")

    layer = pretrained.alexnet_first_layer(str(tmp_path / "last.pt"))

    assert torch.equal(layer["bias"], first_layer()["features.0.bias"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"features.0.weight": torch.zeros(64, 3, 7, 7)},
            r"features.0.weight in .*shape \(64, 3, 7, 7\).*\(64, 3, 11, 11",
        ),
        ({"features.0.bias": torch.zeros(32)}, r"features.0.bias in .*shape \(32,\).*\(64,\)"),
        ({"features.0.bias": None}, "no tensor features.0.bias.*it holds features.0.weight, features.0.bias"),
        ({"features.0.bias": torch.full((64,), torch.nan)}, "features.0.bias in .*not finite"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, change: dict, message: str):
    torch.save(first_layer() | change, tmp_path / "weights.pt")

    with pytest.raises(InputError, match=message) as caught:
        pretrained.alexnet_first_layer(str(tmp_path / "weights.pt"))

    assert str(tmp_path / "weights.pt") in str(caught.value)


class Evil:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("was-here"),)


def damaged_files() -> dict[str, bytes]:
    import io

    buffer = io.BytesIO()
    torch.save(first_layer(), buffer)
    return {
        "cut short": buffer.getvalue()[:20_000],
        "empty": b"",
        "text": b"not weights at all\n",
        "code": pickle.dumps({"features.0.weight": Evil()}),
        "holes": buffer.getvalue()[:100] + bytes(500) + buffer.getvalue()[600:],
    }


@pytest.mark.parametrize("kind", damaged_files())
def test_a_damaged_file_is_named_and_runs_no_code(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pt"
    path.write_bytes(damaged_files()[kind])

    with pytest.raises(InputError, match=r"weights\.pt is damaged, or no file of weights"):
        pretrained.resolve(str(path))

    assert not (tmp_path / "was-here").exists()


def test_a_file_without_a_state_dict_is_named(tmp_path: Path):
    torch.save(torch.zeros(3), tmp_path / "weights.pt")

    with pytest.raises(InputError, match=r"weights\.pt holds a Tensor; a state dict is needed"):
        pretrained.resolve(str(tmp_path / "weights.pt"))


def test_a_path_that_leads_nowhere_is_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"missing\.pt cannot be read \(No such file"):
        pretrained.resolve(str(tmp_path / "missing.pt"))
    with pytest.raises(InputError, match=r"is a folder without checkpoints/last\.pt"):
        pretrained.resolve(str(tmp_path))
