"""Evaluation against sums in float64; it leaves the model as it was."""

import torch
from torch import nn

from deepexp.step import Precision
from deepexp.training.evaluation import evaluate, score


class Hungry(nn.Module):
    """Runs out of memory above 10 samples."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 5)

    def forward(self, x):
        if len(x) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.layer(x.flatten(1))


def test_batches_are_halved_until_they_fit(caplog):
    torch.manual_seed(0)
    images, labels = torch.randn(50, 3, 2, 2), torch.randint(5, (50,))
    model = Hungry()
    precision = Precision(torch.device("cpu"), "fp32")
    found = evaluate(model, Batches(images, labels), 50, precision, 32)
    assert torch.equal(found.predicted, model.layer(images.flatten(1)).argmax(1))
    assert "batches of 8 samples" in caplog.text
    assert model.training


class Batches:
    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def batches(self, order, bounds):
        for start, stop in bounds:
            yield self.images[order[start:stop]], self.labels[order[start:stop]]


def test_loss_errors_and_predictions_do_not_depend_on_the_batch_size():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 5))
    images, labels = torch.randn(53, 3, 2, 2), torch.randint(5, (53,))
    model.train()
    statistics = model[2].running_mean.clone()
    model.eval()
    logits = model(images).detach()
    loss = -torch.log_softmax(logits.double(), 1)[torch.arange(53), labels].mean().item()
    model.train()
    model[3].eval()
    for batch_size in (1, 10, 53, 1000):
        found = evaluate(model, Batches(images, labels), 53, Precision(torch.device("cpu"), "fp32"), batch_size)
        assert abs(found.loss - loss) < 1e-6
        assert found.errors == (logits.argmax(1) != labels).sum().item()
        assert found.error_rate == found.errors / 53
        assert torch.equal(found.predicted, logits.argmax(1))
    assert torch.equal(model[2].running_mean, statistics)
    assert model.training and model[2].training and not model[3].training


class Rounded(nn.Linear):
    """A model that casts its logits to bfloat16."""

    def forward(self, x):
        return super().forward(x.flatten(1)).bfloat16()


def test_the_loss_of_bfloat16_logits_is_computed_in_higher_precision():
    torch.manual_seed(0)
    model = Rounded(12, 5)
    images, labels = torch.randn(700, 3, 2, 2), torch.randint(5, (700,))
    expected = nn.functional.cross_entropy(model(images).double(), labels).item()
    found = evaluate(model, Batches(images, labels), 700, Precision(torch.device("cpu"), "fp32"), 700)
    assert abs(found.loss - expected) < 1e-6


def test_halved_batches_are_scored_by_the_given_scorer():
    """Otherwise a signal, which the scorer obeys, would be ignored after halving."""
    sizes = []

    def scorer(model, loader, order, bounds):
        sizes.append(bounds[0][1])
        yield from score(model, loader, order, bounds)

    images, labels = torch.randn(20, 3, 2, 2), torch.randint(5, (20,))
    evaluate(Hungry(), Batches(images, labels), 20, Precision(torch.device("cpu"), "fp32"), 20, scorer=scorer)
    assert sizes == [20, 10]
