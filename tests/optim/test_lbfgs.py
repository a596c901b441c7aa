import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deepexp.optim.lbfgs import LBFGS

from .update_rules import inverse_hessian


def rosenbrock(p: Tensor) -> Tensor:
    """(1 − x)² + 100 (y − x²)², with its minimum at (1, 1)."""
    return (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2


def rosenbrock_gradient(p: np.ndarray) -> np.ndarray:
    x, y = p
    return np.array([-2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)])


def closure_of(optimizer: torch.optim.Optimizer, loss_of: Callable[[], Tensor]) -> Callable[[], Tensor]:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        return loss.detach()

    return closure


def start() -> nn.Parameter:
    return nn.Parameter(torch.tensor([-1.2, 1.0], dtype=torch.float64))


@pytest.mark.parametrize("keep_history", [True, False])
def test_lbfgs_finds_the_minimum_of_rosenbrock(keep_history: bool) -> None:
    point = start()
    optimizer = LBFGS([point], tolerance_change=1e-20, line_search_fn="strong_wolfe", keep_history=keep_history)
    for _ in range(5):
        optimizer.step(closure_of(optimizer, lambda: rosenbrock(point)))
    np.testing.assert_allclose(point.detach(), [1, 1], atol=1e-6)


def test_each_line_search_ends_at_a_strong_wolfe_point() -> None:
    """Nocedal and Wright, equations 3.7: enough decrease (c₁ = 10⁻⁴), and a slope that is flat enough (c₂ = 0.9)."""
    point = start()
    optimizer = LBFGS([point], max_iter=1, max_eval=25, line_search_fn="strong_wolfe", keep_history=True)
    points = [point.detach().numpy().copy()]
    for _ in range(15):
        optimizer.step(closure_of(optimizer, lambda: rosenbrock(point)))
        points.append(point.detach().numpy().copy())
    gradients = [rosenbrock_gradient(p) for p in points]
    values = [rosenbrock(torch.from_numpy(p)).item() for p in points]
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    for k in range(15):
        direction = -inverse_hessian(pairs) @ gradients[k] if pairs else -gradients[k]
        step = points[k + 1] - points[k]
        length = step @ direction / (direction @ direction)
        assert length > 0
        np.testing.assert_allclose(step, length * direction, rtol=1e-6)
        slope, new_slope = gradients[k] @ direction, gradients[k + 1] @ direction
        assert values[k + 1] <= values[k] + 1e-4 * length * slope
        assert abs(new_slope) <= 0.9 * abs(slope)
        pairs.append((step, gradients[k + 1] - gradients[k]))


def test_the_first_step_is_no_longer_than_one_in_the_l1_norm() -> None:
    for scale in (1e-3, 1.0, 1e3):
        point = start()
        gradient = scale * rosenbrock_gradient(point.detach().numpy())
        optimizer = LBFGS([point], lr=0.5, max_iter=1)
        optimizer.step(closure_of(optimizer, lambda point=point, scale=scale: scale * rosenbrock(point)))
        step = -0.5 * gradient * min(1, 1 / np.abs(gradient).sum())
        np.testing.assert_allclose(point.detach(), start().detach().numpy() + step, rtol=1e-12)


def test_without_history_each_step_equals_that_of_a_new_optimizer() -> None:
    first, second = start(), start()
    kept = LBFGS([first], lr=0.1, max_iter=3, keep_history=False)
    kept.step(closure_of(kept, lambda: rosenbrock(first)))
    kept.step(closure_of(kept, lambda: rosenbrock(first)))
    for _ in range(2):
        fresh = LBFGS([second], lr=0.1, max_iter=3, keep_history=True)
        fresh.step(closure_of(fresh, lambda fresh=fresh: rosenbrock(second)))
    assert torch.equal(first, second)


def test_channels_last_weights_take_the_same_steps() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 9, 2)).double()
    twin = copy.deepcopy(model).to(memory_format=torch.channels_last)
    pictures = torch.randn(6, 3, 5, 5, dtype=torch.float64)
    for each in (model, twin):
        optimizer = LBFGS(each.parameters(), max_iter=5, line_search_fn="strong_wolfe")
        for _ in range(2):
            optimizer.step(closure_of(optimizer, lambda each=each: each(pictures).square().mean()))
    assert twin[0].weight.is_contiguous(memory_format=torch.channels_last)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("keep_history", [True, False])
def test_saved_state_continues_exactly(keep_history: bool) -> None:
    point = start()
    optimizer = LBFGS([point], max_iter=4, line_search_fn="strong_wolfe", keep_history=keep_history)
    for _ in range(2):
        optimizer.step(closure_of(optimizer, lambda: rosenbrock(point)))
    twin = nn.Parameter(point.detach().clone())
    resumed = LBFGS([twin], max_iter=4, line_search_fn="strong_wolfe", keep_history=keep_history)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(2):
        optimizer.step(closure_of(optimizer, lambda: rosenbrock(point)))
        resumed.step(closure_of(resumed, lambda: rosenbrock(twin)))
    assert torch.equal(point, twin)


def test_an_unknown_line_search_is_an_error() -> None:
    with pytest.raises(ValueError, match="line_search_fn: 'wolfe'"):
        LBFGS([start()], line_search_fn="wolfe")
