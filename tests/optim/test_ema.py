import io

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deepexp.optim.ema import Ema


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def disturb(model: nn.Module) -> None:
    """New weights and statistics, as after an update."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p))
    model(torch.randn(8, 3, 3, 3))


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("decay", [0.3, 0.9, 0.999])
def test_average_follows_the_formula(decay: float, recorded: bool) -> None:
    model = network()
    ema = Ema(model, decay, recorded=recorded)
    expected = {name: value.numpy().astype(np.float64) for name, value in snapshot(model).items()}
    for n in range(1, 31):
        disturb(model)
        ema.update()
        share = min(decay, (1 + n) / (10 + n))
        for name, value in snapshot(model).items():
            expected[name] = share * expected[name] + (1 - share) * value.numpy()
    with ema.averaged():
        averaged = snapshot(model)
    assert averaged.pop("1.num_batches_tracked") == 30  # copied, since it is a count
    for name, value in averaged.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-5)


def test_swapping_in_and_out_is_exact_and_in_place() -> None:
    model = network().to(memory_format=torch.channels_last)
    ema = Ema(model, 0.9)
    disturb(model)
    ema.update()
    before, addresses = snapshot(model), [p.data_ptr() for p in model.parameters()]
    with ema.averaged():
        inside = snapshot(model)
        assert [p.data_ptr() for p in model.parameters()] == addresses
    assert not same(inside, before)
    assert same(snapshot(model), before)
    with ema.averaged():
        assert same(snapshot(model), inside)


def test_weights_come_back_when_an_exception_passes() -> None:
    model = network()
    ema = Ema(model, 0.9)
    disturb(model)
    before = snapshot(model)
    with pytest.raises(KeyboardInterrupt), ema.averaged():
        raise KeyboardInterrupt
    assert same(snapshot(model), before)


def test_saved_averages_continue_exactly() -> None:
    model = network()
    ema = Ema(model, 0.999)
    for _ in range(3):
        disturb(model)
        ema.update()
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "ema": ema.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)

    other = network()
    other.load_state_dict(saved["model"])
    resumed = Ema(other, 0.999)
    resumed.load_state_dict(saved["ema"])
    for copy, average in ((model, ema), (other, resumed)):
        torch.manual_seed(1)
        disturb(copy)
        average.update()
    with ema.averaged(), resumed.averaged():
        assert same(snapshot(model), snapshot(other))


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5])
def test_an_impossible_decay_is_an_error(decay: float) -> None:
    with pytest.raises(ValueError, match="decay: "):
        Ema(network(), decay)


@pytest.mark.parametrize("recorded", [False, True])
def test_complex_weights_are_averaged_and_infinite_buffers_copied(recorded: bool) -> None:
    model = nn.Module()
    model.weight = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    model.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    ema = Ema(model, 0.9, recorded=recorded)
    with torch.no_grad():
        model.weight += 11 + 22j
    ema.update()  # (1 + 1) / (10 + 1) of what was before
    averages = ema.state_dict()["averages"]
    torch.testing.assert_close(averages["weight"], torch.full((2,), 9 + 18j))
    assert torch.equal(averages["mask"], model.mask)


class Rebinds(nn.Module):
    """Binds another tensor to its buffer in each pass, as `self.mean = …` does."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.register_buffer("passes", torch.zeros(()))

    def forward(self) -> None:
        self.passes = self.passes + 1


@pytest.mark.parametrize("recorded", [False, True])
def test_a_buffer_that_is_bound_anew_is_averaged_and_comes_back(recorded: bool) -> None:
    model = Rebinds()
    ema = Ema(model, 0.9, recorded=recorded)
    for _ in range(11):
        model()
    ema.update()  # (1 + 1) / (10 + 1) of what was before
    assert ema.state_dict()["averages"]["passes"].item() == pytest.approx(9)
    with ema.averaged():
        assert model.passes.item() == pytest.approx(9)
        with torch.inference_mode():  # as a test pass is
            model()
    assert model.passes.item() == 11
    model()
    ema.update()
