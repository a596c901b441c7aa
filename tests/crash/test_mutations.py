"""Damaged run directories, data files and configs: each gets a message, none does harm.

Hypothesis draws the damage, the same each time, and shrinks a failure to the least damage that does harm.
DEEPEXP_MUTATIONS sets how many (the full number is 500; the default is lower).
"""

import contextlib
import itertools
import os
import random
import re
import shutil
import struct
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from deepexp import checkpoint, cli

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

SMALL = ["epochs=1", "data.subset=40", "batch_size=20", "threads=1", "device=cpu", "log_every=2"]
UNEXPECTED = re.compile(r"Traceback|HYDRA_FULL_ERROR|^deepexp: \w+(Error|Exception)\b", re.MULTILINE)
WORDS = ["null", "-1", "1e400", "[]", "{}", "'", "\t", "${seed}", "&a [*a]", "!!python/object:os.system", "nan", "\0",
         "99999999999999999999", "_target_: os.system", "true", "ü", "0", "? x", "*b", "[[[[[[[[",
         "2026-99-99", "!!python/object/apply:os.mkdir [outside]", "{_target_: os.mkdir, path: outside}"]  # fmt: skip
MOST_SECONDS = 60  # for an answer; it takes less than one, but the machine may be busy


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a run that was cut off, a sweep, MNIST files, pictures and a conf of the user's own."""
    world = tmp_path_factory.mktemp("world")
    assert cli.main(["train", *SMALL, "max_steps=1", f"output_dir={world / 'made'}"]) == 0
    (run,) = (world / "made").glob("*/*")
    shutil.move(run, world / "run")
    shutil.rmtree(world / "made")
    words = ["train", "-m", "seed=0,1", *SMALL, "max_steps=1", "hydra.launcher.jobs=1", f"output_dir={world / 'made'}"]
    assert cli.main(words) == 0
    (sweep,) = (world / "made").glob("*/*")
    shutil.move(sweep, world / "sweep")
    shutil.rmtree(world / "made")
    generator = np.random.default_rng(0)
    raw = world / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, samples in (("train", 60), ("t10k", 20)):
        pixels = generator.integers(0, 256, (samples, 28, 28), dtype=np.uint8)
        labels = (np.arange(samples) % 10).astype(np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, *pixels.shape) + pixels.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, samples) + labels.tobytes())
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (world / "pictures" / split / name).mkdir(parents=True)
            for index in range(6):
                picture = Image.fromarray(generator.integers(0, 256, (28, 28, 3), dtype=np.uint8))
                picture.save(world / "pictures" / split / name / f"{index}.{'png' if index % 2 else 'jpg'}")
    (world / "conf" / "model").mkdir(parents=True)
    net = "# Mine\n_target_: deepexp.models.mnist_net.MnistNet\ninput: {height: 28, width: 28}\n"
    (world / "conf" / "model" / "mine.yaml").write_text(net + "dropout: ${dropout}\nbatch_norm: ${batch_norm}\n")
    (world / "precious").write_text("not to be touched")
    return world


CASES = {
    "run": (["train", "resume=run", "max_steps=null"], "run"),
    "mnist": (["train", "data=mnist", "data.root=data", "data.download=false", *SMALL], "data"),
    "pictures": (
        ["train", "data=image_folder", "data.root=pictures", "epochs=1", "batch_size=4", "threads=1", "device=cpu"],
        "pictures",
    ),
    "conf": (["train", "model=mine", *SMALL], "conf"),
    "sweep": (["train", "resume=sweep"], "sweep"),
}
COUNTS = {"run": 260, "mnist": 70, "pictures": 40, "conf": 70, "sweep": 60}
SHARE = int(os.environ.get("DEEPEXP_MUTATIONS", 35)) / sum(COUNTS.values())


@pytest.mark.parametrize("kind", COUNTS)
def test_damaged_files_get_a_message_and_do_no_harm(world, tmp_path, capsys, kind):
    tried = []

    @settings(
        max_examples=max(1, round(COUNTS[kind] * SHARE)),
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=False))
    def damage_and_look(chosen: random.Random) -> None:
        with tempfile.TemporaryDirectory(dir=tmp_path) as scratch:
            here = Path(scratch) / "here"
            shutil.copytree(world, here)
            damage = mutate(here / CASES[kind][1], chosen)
            tried.append(damage)
            with contextlib.chdir(here):
                judge(here, kind, damage, capsys)

    damage_and_look()
    with capsys.disabled():
        print(f" {len(tried)} of {kind} ", end="")


def judge(here: Path, kind: str, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run the command of this kind, and check status, message and files."""
    words, _ = CASES[kind]
    before, began = snapshot(here), time.monotonic()
    status = cli.main(words)
    seconds = time.monotonic() - began
    streams = capsys.readouterr()
    said = f"{kind}: {damage}\nstatus {status} after {seconds:.1f} s\n{streams.err}\n{streams.out[-2000:]}"
    assert status in (0, 1, 2), said
    assert status == 0 or streams.err.strip() or streams.out.strip(), said
    assert not UNEXPECTED.search(streams.err), said
    assert seconds < MOST_SECONDS, said
    after = snapshot(here)
    own = ("outputs", ".deepexp-cache", *([kind] if kind in ("run", "sweep") else []))
    touched = {name for name in before | after if before.get(name) != after.get(name)}
    assert not {name for name in touched if Path(name).parts[0] not in own}, said


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Content of every file below a folder; None for folders and dangling links. Bytecode caches are left out."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts
    }


def mutate(folder: Path, chosen: random.Random) -> str:
    """Damage one to three files, and say how."""
    done = []
    for _ in range(chosen.choice([1, 1, 1, 2, 3])):
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (".lock", "run.log"))
        if not files:  # the only one was removed
            break
        path = chosen.choice(files)
        content = path.read_bytes()
        how = chosen.choice(KINDS if b"\0" in content or not content else KINDS + TEXT * 3)
        how(path, bytearray(content), chosen)
        done.append(f"{how.__name__} {path.relative_to(folder)}")
    return ", ".join(done)


def flip(path: Path, content: bytearray, chosen: random.Random) -> None:
    for _ in range(chosen.choice([1, 1, 10])):
        if content:
            content[chosen.randrange(min(len(content), chosen.choice([20, len(content)])))] ^= 1 << chosen.randrange(8)
    path.write_bytes(content)


def truncate(path: Path, content: bytearray, chosen: random.Random) -> None:
    path.write_bytes(content[: chosen.choice([0, 1, len(content) // 2, max(0, len(content) - 1)])])


def extend(path: Path, content: bytearray, chosen: random.Random) -> None:
    path.write_bytes(content + chosen.randbytes(chosen.choice([1, 100])))


def remove(path: Path, content: bytearray, chosen: random.Random) -> None:
    path.unlink()


def link(path: Path, content: bytearray, chosen: random.Random) -> None:
    path.unlink()
    outside = (
        Path(os.path.relpath(next(p for p in path.parents if (p / "precious").exists()), path.parent)) / "precious"
    )
    path.symlink_to(chosen.choice([path.name, outside, "/nowhere", "."]))


def make_folder(path: Path, content: bytearray, chosen: random.Random) -> None:
    path.unlink()
    path.mkdir()


def replace_value(path: Path, content: bytearray, chosen: random.Random) -> None:
    """One value of a YAML or JSON text becomes something else."""
    lines = content.decode(errors="replace").splitlines()
    index = chosen.randrange(len(lines))
    key, colon, _ = lines[index].partition(":")
    lines[index] = f"{key}{colon} {chosen.choice(WORDS)}"
    path.write_text("\n".join(lines) + "\n")


def swap_lines(path: Path, content: bytearray, chosen: random.Random) -> None:
    lines = content.decode(errors="replace").splitlines()
    one, other = (chosen.randrange(len(lines)) for _ in range(2))
    lines[one], lines[other] = lines[other], lines[one]
    path.write_text("\n".join(lines) + "\n")


def drop_line(path: Path, content: bytearray, chosen: random.Random) -> None:
    lines = content.decode(errors="replace").splitlines()
    del lines[chosen.randrange(len(lines))]
    path.write_text("\n".join(lines) + "\n")


def double_line(path: Path, content: bytearray, chosen: random.Random) -> None:
    lines = content.decode(errors="replace").splitlines()
    index = chosen.randrange(len(lines))
    path.write_text("\n".join([*lines[: index + 1], *lines[index:]]) + "\n")


KINDS = [flip, flip, truncate, extend, remove, link, make_folder]
TEXT = [replace_value, replace_value, swap_lines, drop_line, double_line]


NOT_NEEDED = {"shape", "classes", "pictures", "scaler", "ema"}
"""Keys of a checkpoint that a run with provenance, in fp32 and without averages, does not need to resume."""
POSSIBLE = [("identity", None), ("piece_size", 7), ("grad_norm", torch.zeros(1)), ("logs", {})]
"""Values that would be right in the checkpoint of another run."""


def test_a_checkpoint_with_a_wrong_value_is_refused(world, tmp_path, capsys):
    """Its digest is right, so that only the check of its content can refuse it."""
    whole = checkpoint.load(world / "run" / "checkpoints" / "last.pt")
    del whole["format"]
    run = tmp_path / "run"
    for key, value in itertools.product(whole, (None, 7, {}, torch.zeros(1))):
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(world / "run", run)  # a fresh copy: a run that was resumed is done, and ignores its checkpoint
        checkpoint.save(run / "checkpoints" / "last.pt", {**whole, key: value})
        status = cli.main(["train", f"resume={run}", "max_steps=null"])
        said = capsys.readouterr().err
        is_taken = key in NOT_NEEDED or any(key == name and repr(value) == repr(it) for name, it in POSSIBLE)
        assert status == (0 if is_taken else 2) and not UNEXPECTED.search(said), (key, value, said)
