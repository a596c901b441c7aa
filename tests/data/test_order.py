import pytest
import torch

from deepexp.data.order import batch_bounds, epoch_order


def test_each_sample_is_visited_exactly_once_an_epoch() -> None:
    for epoch in range(3):
        order = epoch_order(1000, "shuffled", seed=4, epoch=epoch)
        assert order.dtype == torch.int64 and order.device.type == "cpu"
        assert torch.equal(order.sort().values, torch.arange(1000))


def test_order_is_a_pure_function_of_its_arguments() -> None:
    first = epoch_order(1000, "shuffled", seed=4, epoch=2)
    torch.manual_seed(123)
    torch.rand(5)
    assert torch.equal(epoch_order(1000, "shuffled", seed=4, epoch=2), first)
    assert not torch.equal(epoch_order(1000, "shuffled", seed=4, epoch=3), first)
    assert not torch.equal(epoch_order(1000, "shuffled", seed=5, epoch=2), first)


def test_order_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    epoch_order(100, "shuffled", seed=0, epoch=0)
    epoch_order(100, "with_replacement", seed=0, epoch=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_sequential_is_the_order_of_the_data() -> None:
    assert torch.equal(epoch_order(7, "sequential", seed=1, epoch=9), torch.arange(7))


def test_positions_in_a_shuffled_epoch_are_uniform() -> None:
    # Sample 0's position over many epochs has mean (n - 1) / 2 and variance (n² - 1) / 12.
    n, epochs = 20, 2000
    positions = torch.tensor([float((epoch_order(n, "shuffled", 0, e) == 0).nonzero()) for e in range(epochs)])
    deviation = ((n**2 - 1) / 12 / epochs) ** 0.5
    assert abs(positions.mean() - (n - 1) / 2) < 4 * deviation


def test_drawing_with_replacement_misses_a_share_of_one_over_e() -> None:
    n = 100_000
    order = epoch_order(n, "with_replacement", seed=0, epoch=0)
    assert len(order) == n and order.min() >= 0 and order.max() < n
    missing = 1 - len(order.unique()) / n
    assert abs(missing - 0.36788) < 0.005


def test_unknown_order_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^order: 'random' is not allowed; shuffled, sequential or with_replacement"):
        epoch_order(10, "random", 0, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("samples", [1, 2, 9, 10, 11, 12, 101])
@pytest.mark.parametrize("batch_size", [1, 2, 10, 100])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_bounds_cover_every_position_once(samples: int, batch_size: int, batch_norm: bool) -> None:
    bounds = batch_bounds(samples, batch_size, drop_last=False, batch_norm=batch_norm)
    assert [position for start, stop in bounds for position in range(start, stop)] == list(range(samples))
    assert all(stop - start == batch_size for start, stop in bounds[:-2])


@pytest.mark.parametrize(
    ("samples", "drop_last", "batch_norm", "expected"),
    [
        (10, False, False, [(0, 4), (4, 8), (8, 10)]),
        (10, True, False, [(0, 4), (4, 8)]),
        (8, True, True, [(0, 4), (4, 8)]),
        (9, False, False, [(0, 4), (4, 8), (8, 9)]),
        (9, False, True, [(0, 4), (4, 9)]),  # a single sample has no variance
        (9, True, True, [(0, 4), (4, 8)]),
        (5, False, True, [(0, 5)]),
        (10, False, True, [(0, 4), (4, 8), (8, 10)]),
        (1, False, True, [(0, 1)]),
        (3, True, False, []),
    ],
)
def test_the_last_batch_is_joined_dropped_or_kept(
    samples: int, drop_last: bool, batch_norm: bool, expected: list[tuple[int, int]]
) -> None:
    assert batch_bounds(samples, 4, drop_last, batch_norm) == expected
