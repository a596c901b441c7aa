import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from deepexp.models.layout import channels_last, unshared

CRASHES = """
import copy
import torch
from torch import nn
from deepexp.models.layout import channels_last

torch.set_num_threads(1)
for channels in (1, 3, 4, 6, 12):
    model = channels_last(nn.Sequential(nn.Conv2d(channels, 9, 1, stride=2), nn.Tanh(), nn.Conv2d(9, 4, 3)))
    for _ in range(12):  # a crash may need several tries
        pictures = torch.randn(50, channels, 31, 32).to(memory_format=torch.channels_last)
        exact = copy.deepcopy(model).double()
        for each, given in ((model, pictures), (exact, pictures.double())):
            each.zero_grad()
            each(given).square().mean().backward()
        torch.testing.assert_close(model[0].weight.grad.double(), exact[0].weight.grad, rtol=1e-4, atol=1e-6)
print("right")
"""


def test_narrow_strided_projections_have_right_gradients_and_do_not_crash() -> None:
    done = subprocess.run([sys.executable, "-c", CRASHES], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout == "right\n", f"status {done.returncode}: {done.stderr}"


@pytest.mark.parametrize(
    ("layer", "keeps_its_order"),
    [
        (nn.Conv2d(3, 8, 1, stride=2), True), (nn.Conv2d(32, 8, 1, stride=(1, 2), groups=4), True),
        (nn.Conv2d(16, 8, 1, stride=2), False), (nn.Conv2d(3, 8, 1), False), (nn.Conv2d(3, 8, 3, stride=2), False),
    ],
)  # fmt: skip
def test_only_narrow_strided_projections_keep_contiguous_weights(layer: nn.Conv2d, keeps_its_order: bool) -> None:
    model = copy.deepcopy(channels_last(channels_last(nn.Sequential(nn.BatchNorm2d(layer.in_channels), layer))))
    seen: list[bool] = []
    model[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].is_contiguous()))
    model(torch.zeros(2, layer.in_channels, 5, 5).to(memory_format=torch.channels_last))
    assert seen == [keeps_its_order] == [model[1].weight.stride(3) == 1]
    assert len(model[1]._forward_pre_hooks) == keeps_its_order + 1


def test_weights_of_five_dimensions_keep_their_memory_order() -> None:
    layer = nn.Conv3d(2, 3, 2)
    order = layer.weight.stride()
    assert channels_last(layer).weight.stride() == order


def test_changing_the_memory_order_makes_no_step_of_spectral_norm():
    """`deepexp eval` changes the memory order of a trained model, whose logits must stay the same."""
    layer = nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 8, 1, stride=2))
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    channels_last(layer)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_an_expanded_buffer_can_be_loaded_into():
    layer = nn.Linear(2, 3)
    layer.register_buffer("scale", torch.ones(1).expand(3))
    layer.register_buffer("edges", torch.eye(3).to_sparse())
    layer.register_buffer("hidden", torch.ones(3, 1).expand(3, 4), persistent=False)
    unshared(layer)
    assert torch.equal(layer.scale, torch.ones(3)) and torch.equal(layer.hidden, torch.ones(3, 4))
    layer.load_state_dict({**layer.state_dict(), "scale": torch.arange(3.0)})
    layer.hidden.copy_(torch.zeros(3, 4))
    assert layer.scale.tolist() == [0, 1, 2]
