"""Learning rates as numbers and as tensors give the same updates and states."""

import pytest
import torch

from deepexp.optim.learning_rates import LearningRates

CPU = torch.device("cpu")


def optimizer(**arguments) -> torch.optim.Optimizer:
    groups = [{"params": [torch.ones(2, requires_grad=True)], "lr": lr, "initial_lr": lr} for lr in (0.5, 0.25)]
    return torch.optim.SGD(groups, **arguments)


def rates(of: torch.optim.Optimizer) -> list[float]:
    return [float(group["lr"]) for group in of.param_groups]


@pytest.mark.parametrize("device", [None, CPU])
def test_set_scales_the_learning_rate_of_each_group(device):
    made = optimizer(fused=device is not None)
    learning_rates = LearningRates(made, device)
    assert learning_rates.first == 0.5
    for factor in (1.0, 0.5, 0.5, 0.0, 2.0):
        learning_rates.set(factor)
        assert rates(made) == [0.5 * factor, 0.25 * factor]
        assert learning_rates.first == 0.5 * factor


def test_rates_in_tensors_are_changed_in_place():
    made = optimizer(fused=True)
    learning_rates = LearningRates(made, CPU)
    learning_rates.set(1.0)
    before = [group["lr"] for group in made.param_groups]
    learning_rates.set(0.125)
    assert all(group["lr"] is tensor for group, tensor in zip(made.param_groups, before, strict=True))
    assert [tensor.item() for tensor in before] == [0.0625, 0.03125]


@pytest.mark.parametrize("saved_on", [None, CPU])
@pytest.mark.parametrize("loaded_on", [None, CPU])
def test_a_state_saved_with_tensors_loads_as_numbers_and_vice_versa(saved_on, loaded_on):
    saved = LearningRates(optimizer(), saved_on)
    saved.set(0.5)
    state = saved.optimizer_state()
    assert [group["lr"] for group in state["param_groups"]] == [0.25, 0.125]
    assert all(type(group["lr"]) is float for group in state["param_groups"])
    other = optimizer()
    loaded = LearningRates(other, loaded_on)
    loaded.set(2.0)
    loaded.load_optimizer_state(state)
    assert loaded.first == 0.25
    loaded.set(0.5)  # scales the loaded rates, not those of before
    assert rates(other) == [0.25, 0.125]


@pytest.mark.parametrize("kind", [torch.optim.NAdam, torch.optim.Adam, torch.optim.RMSprop])
def test_a_capturable_state_from_a_gpu_continues_on_a_cpu(kind):
    """torch refuses `capturable` on a CPU, but would load it from the state."""
    moved = []
    for ways in ({}, {"capturable": True, "foreach": True}):
        weight = torch.tensor([1.0, -2.0], requires_grad=True)
        made = kind([{"params": [weight], "lr": 0.1, "initial_lr": 0.1}])
        weight.grad = torch.tensor([0.5, 0.25])
        made.step()
        state = LearningRates(made, None).optimizer_state()
        state["param_groups"] = [{**group, **ways} for group in state["param_groups"]]
        LearningRates(made, None).load_optimizer_state(state)
        made.step()
        moved.append(weight.detach())
    assert torch.equal(*moved)


@pytest.mark.parametrize(
    "change", [lambda groups: groups[:1], lambda groups: [*groups, groups[0]]], ids=["few", "many"]
)
def test_a_state_of_other_groups_is_refused_by_torch(change):
    rates = LearningRates(optimizer(), None)
    state = rates.optimizer_state()
    with pytest.raises(ValueError, match="different number of parameter groups"):
        rates.load_optimizer_state({**state, "param_groups": change(state["param_groups"])})


class Remembers(torch.optim.Optimizer):
    """An optimizer whose state has other types than its parameters, unlike torch's own."""

    def __init__(self, params):
        super().__init__(params, {"lr": 0.1})

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter] = {
                    "sum": torch.full((2,), 1 + 2.0**-40, dtype=torch.float64),
                    "count": torch.full((2,), 2**40 + 1),
                    "nested": [{"mask": torch.tensor([True, False])}, torch.ones(2, dtype=torch.bfloat16)],
                    "own": torch.full((2,), 0.5),
                }


def test_optimizer_state_keeps_its_types():
    """`Optimizer.load_state_dict` would convert all of it to the type of the parameter."""
    groups = [{"params": [torch.ones(2, requires_grad=True)], "lr": 0.1, "initial_lr": 0.1} for _ in range(2)]
    saved, loaded = Remembers(groups), Remembers([{**group} for group in groups])
    saved.step()
    LearningRates(loaded, None).load_optimizer_state(LearningRates(saved, None).optimizer_state())
    assert len(loaded.state) == 2
    for state in loaded.state.values():
        assert state["sum"].dtype == torch.float64 and (state["sum"] == 1 + 2.0**-40).all()
        assert state["count"].tolist() == [2**40 + 1] * 2
        assert state["nested"][0]["mask"].tolist() == [True, False]
        assert state["nested"][1].dtype == torch.bfloat16 and state["own"].dtype == torch.float32
