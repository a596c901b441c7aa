"""Damaged checkpoints are refused, and a failed save never loses a good one."""

import collections
import errno
import pickle

import numpy as np
import pytest
import torch

from deepexp import checkpoint
from deepexp.disk import storage
from deepexp.errors import InputError, RunFailed


def content(value: float) -> dict[str, object]:
    return {"model": {"weight": torch.full((3, 4), value)}, "progress": {"step": 7, "rate": None}}


def test_saved_values_are_read_back_bit_for_bit(tmp_path):
    weight = torch.randn(16, 3, 5, 5).to(memory_format=torch.channels_last)
    checkpoint.save(tmp_path / "last.pt", {"model": {"weight": weight}})
    loaded = checkpoint.load(tmp_path / "last.pt")["model"]["weight"]
    assert torch.equal(loaded, weight)
    assert loaded.stride() == weight.stride()


def test_plain_torch_can_read_a_checkpoint(tmp_path):
    checkpoint.save(tmp_path / "last.pt", content(1.0))
    assert torch.load(tmp_path / "last.pt", weights_only=True)["progress"]["step"] == 7


@pytest.mark.parametrize("position", [0, 100, -200, -1])
def test_a_flipped_bit_is_noticed(tmp_path, position):
    path = tmp_path / "last.pt"
    checkpoint.save(path, content(1.0))
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"last\.pt"):
        checkpoint.load(path)


@pytest.mark.parametrize("kept", [0, 1, 50, 500])
def test_a_file_cut_short_is_noticed(tmp_path, kept):
    path = tmp_path / "last.pt"
    checkpoint.save(path, content(1.0))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match="cut short"):
        checkpoint.load(path)


def test_previous_is_used_when_last_is_damaged(tmp_path, caplog):
    last, previous = tmp_path / "last.pt", tmp_path / "previous.pt"
    for value in (1.0, 2.0):
        checkpoint.save(last, content(value), keep_previous=previous)
    last.write_bytes(b"rubbish")
    path, loaded = checkpoint.load_latest(tmp_path)
    assert path == previous
    assert loaded["model"]["weight"][0, 0] == 1.0
    assert "taking previous.pt" in caplog.text


@pytest.mark.parametrize(("previous", "told"), [(None, "there is no other"), (b"too", "previous.pt is no better")])
def test_without_a_good_checkpoint_a_new_run_is_advised(tmp_path, previous, told):
    (tmp_path / "last.pt").write_bytes(b"rubbish")
    if previous is not None:
        (tmp_path / "previous.pt").write_bytes(previous)
    with pytest.raises(InputError, match=rf"last\.pt: is cut short .*, and {told}; start a new run with the config in"):
        checkpoint.load_latest(tmp_path)


def test_a_full_disk_keeps_the_old_checkpoint_and_is_reported(tmp_path, monkeypatch):
    last = tmp_path / "last.pt"
    checkpoint.save(last, content(1.0), keep_previous=tmp_path / "previous.pt")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(RunFailed, match=r"last\.pt.*No space left.*free"):
        checkpoint.save(last, content(2.0), keep_previous=tmp_path / "previous.pt")
    monkeypatch.undo()
    assert checkpoint.load(last)["model"]["weight"][0, 0] == 1.0


def test_a_killed_save_leaves_no_other_file(tmp_path):
    """Killed after `last.pt` was linked to its second name, and before it was replaced: one file has both names."""
    last, previous = tmp_path / "last.pt", tmp_path / "previous.pt"
    checkpoint.save(last, content(1.0))
    previous.hardlink_to(last)
    checkpoint.save(last, content(2.0), keep_previous=previous)
    assert {path.name for path in tmp_path.iterdir()} == {"last.pt", "previous.pt"}
    assert [checkpoint.load(path)["model"]["weight"][0, 0] for path in (previous, last)] == [1.0, 2.0]


def test_a_failed_save_releases_its_buffer(tmp_path, monkeypatch):
    """Python 3.13 complains if a buffer is freed before a view of it, which can happen when an error holds both."""
    views = []

    def full(path, data):
        views.append(data)
        raise RunFailed("no space left")

    monkeypatch.setattr(checkpoint, "write_atomically", full)
    with pytest.raises(RunFailed):
        checkpoint.save(tmp_path / "last.pt", {"a": 1})
    with pytest.raises(ValueError, match="released"):
        bytes(views[0])


def test_pickled_code_is_not_run(tmp_path):
    bomb_went_off = tmp_path / "boom"

    class Bomb:
        def __reduce__(self):
            return bomb_went_off.touch, ()

    path = tmp_path / "last.pt"
    torch.save({"format": 1, "model": Bomb()}, path)
    checkpoint_of_bomb = path.read_bytes()
    import hashlib

    digest = hashlib.sha256(checkpoint_of_bomb).hexdigest().encode()
    path.write_bytes(checkpoint_of_bomb + b"\ndeepexp-sha256:" + digest + b"\n")
    with pytest.raises(InputError, match="more than tensors"):
        checkpoint.load(path)
    assert not bomb_went_off.exists()
    pickle.loads(pickle.dumps(Bomb()))  # an ordinary unpickler does run the code
    assert bomb_went_off.exists()


def test_a_newer_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    checkpoint.save(tmp_path / "last.pt", content(1.0))
    monkeypatch.undo()
    with pytest.raises(InputError, match="newer deepexp"):
        checkpoint.load(tmp_path / "last.pt")


@pytest.mark.parametrize(
    "value", [np.float64(0.5), collections.deque([1]), lambda: 1], ids=["numpy", "deque", "lambda"]
)
def test_values_that_could_not_be_loaded_are_not_saved(tmp_path, value):
    """Otherwise the error would come on resuming, when all checkpoints of the run are useless."""
    state = {"state": {0: {"seen": [1, value]}}, "param_groups": []}
    with pytest.raises(
        RunFailed,
        match=r"optimizer\.state\.0\.seen\.1 is of type .*(float64|deque|function), which cannot be loaded again",
    ):
        checkpoint.save(tmp_path / "last.pt", {"optimizer": state})
    assert not list(tmp_path.iterdir())


def test_values_that_can_be_loaded_are_saved(tmp_path):
    kept = {"size": torch.Size([2]), "type": torch.float16, "set": {1}, "order": collections.OrderedDict(a=(None, 1j))}
    checkpoint.save(tmp_path / "last.pt", {"optimizer": kept})
    assert checkpoint.load(tmp_path / "last.pt")["optimizer"] == kept
