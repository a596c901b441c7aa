"""Losses against torch's and against their formulas in float64; runs that are trained with them."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from deepexp import cli
from deepexp.data.digits import Digits
from deepexp.errors import InputError
from deepexp.report.make import make
from deepexp.training.losses import BinaryCrossEntropy, CrossEntropy, Focal, Hinge, SquaredError, reduced

SAMPLES, CLASSES = 40, 6
LABELS = torch.randint(CLASSES, (SAMPLES,), generator=torch.Generator().manual_seed(1))
LOSSES = {
    "cross_entropy": CrossEntropy(),
    "focal": Focal(2.0),
    "squared_error": SquaredError(),
    "binary_cross_entropy": BinaryCrossEntropy(),
    "hinge": Hinge(1.0),
}


def outputs(scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(SAMPLES, CLASSES, generator=torch.Generator().manual_seed(2))


def one_hot(labels: torch.Tensor, classes: int = CLASSES) -> torch.Tensor:
    return torch.eye(classes, dtype=torch.float64)[labels]


def of_label(values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return values[torch.arange(len(labels)), labels]


def focal(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    p = of_label(logits.exp() / logits.exp().sum(1, keepdim=True), labels)
    return -((1 - p) ** 2) * p.log()


def binary_cross_entropy(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    p, target = 1 / (1 + (-outputs).exp()), one_hot(labels, outputs.shape[1])
    return -(target * p.log() + (1 - target) * (1 - p).log()).mean(1)


def hinge(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    short = (1 - of_label(outputs, labels).unsqueeze(1) + outputs).clamp_min(0)
    return (short * (1 - one_hot(labels, outputs.shape[1]))).mean(1)


FORMULAS = {
    "cross_entropy": lambda logits, labels: logits.exp().sum(1).log() - of_label(logits, labels),
    "focal": focal,
    "squared_error": lambda outputs, labels: (outputs - one_hot(labels, outputs.shape[1])).square().mean(1),
    "binary_cross_entropy": binary_cross_entropy,
    "hinge": hinge,
}
OF_TORCH = {
    "cross_entropy": nn.CrossEntropyLoss(),
    "squared_error": lambda outputs, labels: nn.MSELoss()(outputs, one_hot(labels).float()),
    "binary_cross_entropy": lambda outputs, labels: nn.BCEWithLogitsLoss()(outputs, one_hot(labels).float()),
    "hinge": nn.MultiMarginLoss(),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients_are_those_of_the_formula_in_float64(name):
    ours = outputs().requires_grad_()
    exact = outputs().double().requires_grad_()
    found, expected = LOSSES[name](ours, LABELS), FORMULAS[name](exact, LABELS)
    assert found.shape == (SAMPLES,)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-7)
    weights = torch.linspace(1, 2, SAMPLES)
    (weights * found).sum().backward()
    (weights * expected).sum().backward()
    torch.testing.assert_close(ours.grad.double(), exact.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", OF_TORCH)
def test_their_means_are_the_losses_of_torch(name):
    torch.testing.assert_close(reduced(LOSSES[name], outputs(), LABELS, "mean"), OF_TORCH[name](outputs(), LABELS))


def test_a_focal_loss_with_gamma_0_is_the_cross_entropy():
    torch.testing.assert_close(Focal(0.0)(outputs(), LABELS), CrossEntropy()(outputs(), LABELS))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1000.0])
def test_a_focal_loss_is_finite_for_pictures_that_the_model_is_sure_of(gamma, scale):
    logits = outputs(scale).requires_grad_()
    losses = Focal(gamma)(logits, LABELS)
    losses.sum().backward()
    assert losses.isfinite().all() and logits.grad.isfinite().all() and (losses >= 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_sums_and_means_are_over_the_samples_each_times_the_weight_of_its_class(name):
    loss, of_classes = LOSSES[name], torch.linspace(0, 3, CLASSES)
    losses = loss(outputs(), LABELS)
    torch.testing.assert_close(reduced(loss, outputs(), LABELS, "none"), losses)
    torch.testing.assert_close(reduced(loss, outputs(), LABELS, "sum"), losses.sum())
    torch.testing.assert_close(reduced(loss, outputs(), LABELS, "mean"), losses.mean())
    weighted = of_classes[LABELS] * losses
    torch.testing.assert_close(reduced(loss, outputs(), LABELS, "none", class_weights=of_classes), weighted)
    torch.testing.assert_close(reduced(loss, outputs(), LABELS, "sum", class_weights=of_classes), weighted.sum())


def test_a_loss_derived_from_the_cross_entropy_is_called():
    class Halved(CrossEntropy):
        def __call__(self, logits, labels):
            return super().__call__(logits, labels) / 2

    half = reduced(Halved(), outputs(), LABELS, "sum")
    torch.testing.assert_close(2 * half, reduced(CrossEntropy(), outputs(), LABELS, "sum"))


@pytest.mark.parametrize("name", LOSSES)
def test_a_run_learns_with_each_loss_and_reports_that_loss_on_the_test_set(run, capsys, name):
    result = run(["epochs=3", "optim=adam", "optim.lr=0.002", "batch_size=20", f"loss={name}", "augment=mixup"])
    assert result.test_error_rate < 0.15  # chance is 0.9
    training, test = (
        F.interpolate(split.images, (28, 28), mode="bilinear", antialias=True).double() for split in Digits().load()
    )
    with torch.inference_mode():
        logits = result.model(((test - training.mean()) / training.std()).float())
    expected = FORMULAS[name](logits.double(), Digits().load()[1].labels).mean().item()
    assert result.test_loss == pytest.approx(expected, rel=1e-4)
    assert cli.main(["eval", f"run={result.directory}", "device=cpu"]) == 0
    assert f"test loss    {result.test_loss:.4f}" in capsys.readouterr().out


def test_losses_of_different_kinds_are_not_compared(run, tmp_path):
    for name in ("cross_entropy", "hinge"):
        run(["epochs=1", "data.subset=100", f"loss={name}"])
    report = make([tmp_path / "outputs"])
    assert {group.label for group in report.groups} == {"loss=cross_entropy", "loss=hinge"}
    assert any(note.startswith("loss: runs with different ones have") for note in report.notes)
    (one, _) = (tmp_path / "outputs" / "mnist_net").iterdir()
    assert not any(note.startswith("loss:") for note in make([one]).notes)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["loss=focal", "loss.gamma=-1"], r"^loss: gamma: -1 is not allowed; a number ≥ 0$"),
        (["loss=hinge", "loss.margin=-0.5"], r"^loss: margin: -0\.5 is not allowed; a number ≥ 0$"),
        (["loss=focal", "loss.gamma=much"], r"^loss\.gamma: 'much' is not allowed; a number"),
        (["~loss"], r"^loss: is missing$"),
        (["loss=fokal"], r"did you mean 'focal'\?"),
        (["loss=hinge", "label_smoothing=0.1"], r"^label_smoothing: is for loss=cross_entropy alone; leave it at 0\.0"),
    ],
)
def test_wrong_losses_are_refused(run, words, told):
    with pytest.raises(InputError, match=told):
        run(words)
