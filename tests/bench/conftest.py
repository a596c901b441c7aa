import pytest
import torch


@pytest.fixture(autouse=True)
def threads():
    """A contender sets the threads of its process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
