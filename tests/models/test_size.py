from torch import nn

from deepexp.models.size import parameter_count


def test_every_parameter_is_counted_once_frozen_ones_too_and_buffers_are_not():
    first = nn.Linear(3, 4)
    model = nn.Sequential(first, nn.BatchNorm1d(4), first)
    first.requires_grad_(False)
    assert parameter_count(model) == (3 * 4 + 4) + (4 + 4)
    assert parameter_count(nn.ReLU()) == 0
