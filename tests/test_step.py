"""One update against torch's losses and a plain loop."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from deepexp.step import Batch, Objective, Precision, Step

CPU = torch.device("cpu")


def make(seed: int = 0, **options):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    options = {"objective": Objective(), "precision": Precision(CPU, "fp32"), **options}
    return model, Step(model, optimizer, **options)


def samples(count: int, seed: int = 1) -> Batch:
    random = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, 2, 2, generator=random)
    return Batch(images, torch.randint(4, (count,), generator=random))


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_an_update_equals_a_plain_loop_bit_for_bit():
    model, step = make()
    plain, _ = make()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.5)
    for seed in range(5):
        batch = samples(10, seed)
        update = step([batch], 10)
        logits = plain(batch.images)
        loss = F.cross_entropy(logits, batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert update.loss.item() == loss.item()
        assert update.errors.item() == (logits.argmax(1) != batch.labels).sum().item()
    assert torch.equal(weights(model), weights(plain))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("of_classes", [None, torch.tensor([0.5, 3.0, 0.0, 1.0])])
def test_an_update_of_several_batches_equals_one_of_a_single_batch(reduction, smoothing, of_classes):
    whole = samples(30)
    pieces = [Batch(whole.images[a:b], whole.labels[a:b]) for a, b in [(0, 7), (7, 20), (20, 30)]]
    results = []
    for batches in ([whole], pieces):
        model, step = make(objective=Objective(reduction, smoothing, of_classes))
        step.optimizer.param_groups[0]["lr"] = 0.01
        update = step(batches, 30)
        results.append((update.loss.item(), update.errors.item(), weights(model)))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    assert results[0][1] == results[1][1]
    torch.testing.assert_close(results[0][2], results[1][2], rtol=1e-5, atol=1e-6)


def test_sum_with_lr_equals_mean_with_lr_times_batch_size():
    batch = samples(25)
    moved = []
    for reduction, rate in (("sum", 0.004), ("mean", 0.1)):
        model, step = make(objective=Objective(reduction))
        step.optimizer.param_groups[0]["lr"] = rate
        for _ in range(5):
            step([batch], 25)
        moved.append(weights(model))
    torch.testing.assert_close(moved[0], moved[1], rtol=1e-4, atol=1e-6)


def test_a_mixed_picture_counts_by_the_label_of_the_larger_share():
    model, step = make()
    own = samples(3)
    predicted = model(own.images).argmax(1)
    shares = torch.tensor([0.4, 0.4, 0.6])  # of the picture's own label; the partner's label is the predicted one
    mixed = Batch(own.images, (predicted + 1) % 4, predicted, shares)
    assert step([mixed], 3).errors.item() == 1


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_mixed_labels_are_weighted_by_their_shares(smoothing):
    batch = samples(8)
    partner, share = batch.labels.roll(3), torch.linspace(0, 1, 8)
    model, step = make(objective=Objective("mean", smoothing))
    logits = model(batch.images).detach().double()
    log_probability = logits - torch.logsumexp(logits, 1, keepdim=True)
    log_probability = (1 - smoothing) * log_probability + smoothing * log_probability.mean(1, keepdim=True)
    own = -log_probability[torch.arange(8), batch.labels]
    other = -log_probability[torch.arange(8), partner]
    expected = (share * own + (1 - share) * other).mean().item()
    update = step([Batch(batch.images, batch.labels, partner, share)], 8)
    assert update.loss.item() == pytest.approx(expected, rel=1e-6)


def test_label_smoothing_against_its_formula():
    batch = samples(6)
    model, step = make(objective=Objective("mean", 0.2))
    logits = model(batch.images).detach().double()
    target = torch.full((6, 4), 0.2 / 4, dtype=torch.float64)
    target[torch.arange(6), batch.labels] += 0.8
    expected = -(target * torch.log_softmax(logits, 1)).sum(1).mean().item()
    assert step([batch], 6).loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("is_mixed", [False, True])
def test_weighted_classes_against_their_formula(smoothing, is_mixed):
    batch, of_classes = samples(12), torch.tensor([0.5, 3.0, 0.0, 1.0])
    partner, share = (batch.labels.roll(5), torch.linspace(0, 1, 12)) if is_mixed else (None, None)
    model, step = make(objective=Objective("mean", smoothing, of_classes))
    target = torch.full((12, 4), smoothing / 4, dtype=torch.float64)
    for labels, part in [(batch.labels, share), (partner, 1 - share)] if is_mixed else [(batch.labels, torch.ones(12))]:
        target[torch.arange(12), labels] += (1 - smoothing) * part
    logits = model(batch.images).double()
    expected = -(of_classes * target * torch.log_softmax(logits, 1)).sum(1).mean()
    expected.backward()
    gradients = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    update = step.gradients([Batch(batch.images, batch.labels, partner, share)], 12)
    assert update.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(torch.cat([p.grad.flatten() for p in model.parameters()]), gradients)


def test_clipping_bounds_the_update_and_reports_the_norm_before():
    batch = samples(20)
    model, step = make(clip_grad_norm=1e-3)
    before = weights(model)
    step([batch], 20)
    moved = (weights(model) - before).norm().item()
    assert moved == pytest.approx(0.5 * 1e-3, rel=1e-3)
    clipped, unclipped = step.grad_norm().item(), make()[1]
    unclipped([batch], 20)
    assert clipped == pytest.approx(unclipped.grad_norm().item(), rel=1e-6)
    assert clipped > 1e-3


class Darkens(nn.Module):
    """Changes its input in place."""

    def forward(self, images):
        return images.mul_(0.5)


class Hungry(nn.Module):
    """Runs out of memory when it gets more than `limit` samples."""

    def __init__(self, inner: nn.Module, limit: int) -> None:
        super().__init__()
        self.inner, self.limit, self.sizes = inner, limit, []

    def forward(self, x):
        self.sizes.append(len(x))
        if len(x) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.inner(x)


def test_batches_are_halved_until_they_fit_and_the_update_is_the_same(caplog):
    batch = samples(20)
    model, step = make(split_on_oom=True)
    step.model = hungry = Hungry(model, 6)
    update = step([batch], 20)
    assert hungry.sizes == [20, 10, 5, 5, 5, 5]
    assert "parts of 5 samples" in caplog.text
    reference, plain = make()
    expected = plain([batch], 20)
    assert update.loss.item() == pytest.approx(expected.loss.item(), rel=1e-6)
    torch.testing.assert_close(weights(model), weights(reference), rtol=1e-5, atol=1e-7)


def test_a_model_that_changes_its_input_gets_the_same_pictures_again():
    model, step = make(split_on_oom=True)
    step.model = nn.Sequential(Darkens(), Hungry(model, 6))
    batch = samples(20)
    update = step([batch], 20)
    reference, plain = make()
    expected = plain([Batch(0.5 * samples(20).images, batch.labels)], 20)
    assert update.loss.item() == pytest.approx(expected.loss.item(), rel=1e-6)
    torch.testing.assert_close(weights(model), weights(reference), rtol=1e-5, atol=1e-7)


def test_without_split_on_oom_the_error_is_raised():
    model, step = make()
    step.model = Hungry(model, 6)
    with pytest.raises(torch.OutOfMemoryError):
        step([samples(20)], 20)


def test_lbfgs_has_the_same_dropout_masks_within_an_update():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 4))
    optimizer = torch.optim.LBFGS(model.parameters(), lr=1, max_iter=5, line_search_fn="strong_wolfe")
    seen = []
    model[1].register_forward_hook(lambda module, inputs, output: seen.append(output.detach().clone()))
    step = Step(model, optimizer, objective=Objective(), precision=Precision(CPU, "fp32"))
    batch = samples(40)
    first = step([batch], 40).loss.item()
    assert len(seen) > 2
    assert all(torch.equal(seen[0], later) for later in seen)
    masks = len(seen)
    step([batch], 40)
    assert not torch.equal(seen[0], seen[masks])
    assert math.isfinite(first)


def test_lbfgs_sees_one_function_of_a_model_that_changes_its_input():
    torch.manual_seed(0)
    model = nn.Sequential(Darkens(), nn.Flatten(), nn.Linear(12, 4))
    optimizer = torch.optim.LBFGS(model.parameters(), lr=1, max_iter=5, line_search_fn="strong_wolfe")
    seen = []
    model[0].register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    step = Step(model, optimizer, objective=Objective(), precision=Precision(CPU, "fp32"))
    step([samples(40)], 40)
    assert len(seen) > 2
    assert all(torch.equal(seen[0], later) for later in seen)


class Closures(torch.optim.LBFGS):
    """Records the loss and the gradient norm of each evaluation of its closure."""

    def step(self, closure):
        self.seen = []

        def noted():
            loss = closure()
            gradients = [p.grad for group in self.param_groups for p in group["params"]]
            self.seen.append((loss.item(), torch.nn.utils.get_total_norm(gradients).item()))
            return loss

        return super().step(noted)


@pytest.mark.parametrize(("reduction", "times"), [("mean", 1), ("sum", 40)])
def test_lbfgs_gets_the_loss_in_the_reduction_of_its_gradients(reduction, times):
    """Otherwise its line search would compare decreases and slopes on two scales. The reported loss is the mean."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    batch = samples(40)
    before = F.cross_entropy(model(batch.images), batch.labels).item()
    optimizer = Closures(model.parameters(), lr=0.01, max_iter=3)
    step = Step(model, optimizer, objective=Objective(reduction), precision=Precision(CPU, "fp32"))
    assert step([batch], 40).loss.item() == pytest.approx(before, rel=1e-6)
    losses = [loss for loss, _ in optimizer.seen]
    assert losses[0] == pytest.approx(times * before, rel=1e-6)
    assert len(losses) == 3 and losses[-1] < losses[0]


def test_lbfgs_gets_clipped_gradients():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    optimizer = Closures(model.parameters(), lr=0.01, max_iter=3)
    step = Step(model, optimizer, objective=Objective(), precision=Precision(CPU, "fp32"), clip_grad_norm=1e-3)
    step([samples(40)], 40)
    assert [norm for _, norm in optimizer.seen] == pytest.approx([1e-3] * len(optimizer.seen), rel=1e-2)
    assert step.grad_norm().item() > 1e-2


def test_fp16_clips_the_gradient_after_unscaling():
    """The scale is 65,536: clipping before unscaling would leave almost no gradient."""
    batch = samples(20)
    norms = []
    for name in ("fp32", "fp16"):
        model, step = make(precision=Precision(CPU, name), clip_grad_norm=0.1)
        before = weights(model)
        step([batch], 20)
        assert (weights(model) - before).norm().item() == pytest.approx(0.5 * 0.1, rel=1e-3)
        norms.append(step.grad_norm().item())
    assert norms[1] == pytest.approx(norms[0], rel=1e-2)


class Rounded(nn.Linear):
    """A model that casts its logits to bfloat16."""

    def forward(self, x):
        return super().forward(x.flatten(1)).bfloat16()


def test_the_loss_of_bfloat16_logits_is_computed_in_higher_precision():
    """A loss in bfloat16 would have only three digits."""
    torch.manual_seed(0)
    batch, model = samples(700), Rounded(12, 4)
    expected = F.cross_entropy(model(batch.images).double(), batch.labels).item()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = Step(model, optimizer, objective=Objective(), precision=Precision(CPU, "fp32"))
    assert step([batch], 700).loss.item() == pytest.approx(expected, rel=1e-6)


def test_bf16_is_near_fp32_and_keeps_float32_weights():
    batch = samples(64)
    losses = []
    for name in ("fp32", "bf16"):
        model, step = make(precision=Precision(CPU, name))
        losses.append([step([batch], 64).loss.item() for _ in range(5)])
        assert all(p.dtype == torch.float32 for p in model.parameters())
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=2e-2)
