"""Small data of the real formats in files, and a server to download them from."""

import http.server
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .samples import idx_arrays, idx_bytes


@pytest.fixture
def idx_root(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A data root with a small set in place of MNIST's files, and its arrays by file name."""
    arrays = idx_arrays()
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        (folder / name).write_bytes(idx_bytes(array))
    return tmp_path, arrays


@pytest.fixture(scope="session")
def real_root() -> Path:
    """The data root with real MNIST."""
    root = Path(os.environ.get("DEEPEXP_DATA", "data"))
    folder = root / "MNIST" / "raw"
    if not (folder / "train-images-idx3-ubyte").exists() and not (folder / "train-images-idx3-ubyte.gz").exists():
        pytest.skip(f"there is no MNIST in {folder.absolute()}; DEEPEXP_DATA names another data root")
    return root


@dataclass
class Served:
    """Files by name, the requests received, and how many bytes are sent before the connection breaks."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    break_after: int | None = None


@pytest.fixture
def server() -> Iterator[Served]:
    """An HTTP server on this machine."""
    served = Served("")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.lstrip("/")
            served.requests.append(name)
            if name not in served.files:
                self.send_error(404)
                return
            content = served.files[name]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: served.break_after])

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        served.url = f"http://127.0.0.1:{http_server.server_address[1]}/"
        thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        http_server.shutdown()
        thread.join()


@pytest.fixture
def save_picture() -> Callable[..., None]:
    """Writes a random picture file: path, (height, width), mode."""

    def save(path: Path, size: tuple[int, int] = (8, 8), mode: str = "RGB", seed: int = 0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = size if mode == "L" else (*size, len(mode))
        values = np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)
        Image.fromarray(values).save(path)

    return save


@pytest.fixture
def picture_root(tmp_path: Path, save_picture: Callable[..., None]) -> Path:
    """`train/` and `test/` with the classes ant and bee, as lossless files."""
    root = tmp_path / "pictures"
    for split, count in (("train", 6), ("test", 3)):
        for label, name in enumerate(("ant", "bee")):
            for index in range(count):
                save_picture(root / split / name / f"{index}.png", seed=100 * label + index + len(split))
    return root
