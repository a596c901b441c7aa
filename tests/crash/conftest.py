import pytest
import torch

from .strangers import Bomb


@pytest.fixture
def mark(tmp_path):
    return tmp_path / "the-bomb-went-off"


@pytest.fixture
def bomb(tmp_path, mark):
    path = tmp_path / "bomb.pt"
    torch.save({"format": 1, "model": Bomb(mark)}, path)
    return path
