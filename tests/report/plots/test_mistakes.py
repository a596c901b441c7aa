"""The worst mistakes, from running the model again; or the reason why it cannot be run."""

import re

import numpy as np
import pytest
import torch

from deepexp.inference.retest import Retest, retest
from deepexp.report import document
from deepexp.report.make import make
from deepexp.report.plots import mistakes
from deepexp.report.plots.plot import Missing, Plot
from deepexp.report.runs import read

from ..synthetic import make_run


@pytest.fixture
def directory(run):
    return run(["epochs=2", "val_fraction=0.1", "data.normalise=scalar"]).directory


def test_a_retest_gives_the_predictions_of_the_run(directory):
    found = retest(directory)
    predicted, target = read([directory]).runs[0].predictions()
    assert np.array_equal(found.target.numpy(), target)
    assert (found.probabilities.argmax(1).numpy() == predicted).mean() > 0.99
    assert found.images.shape == (359, 1, 28, 28)


def test_mistakes_are_ordered_by_their_probability():
    probabilities = torch.tensor([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    images, target = torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([1, 1, 1, 0])
    found = Retest(images, target, probabilities, ("a", "b"), None, loss=0.0, saved=None, precision="fp32")
    assert mistakes.worst_mistakes(found) == [1, 3, 0]


def test_mistakes_are_drawn_with_true_and_predicted_class(directory):
    run = read([directory]).runs[0]
    plot = mistakes.draw(run)
    assert isinstance(plot, Plot)
    predicted, target = run.predictions()
    titles = [axis.get_title() for axis in plot.figure.axes if axis.get_title()]
    assert len(titles) == min(24, int((predicted != target).sum()))
    for title in titles:
        true, taken, sample = re.fullmatch(r"(\d) → (\d)\n[\d.]+%  #(\d+)", title).groups()
        assert (target[int(sample)], predicted[int(sample)]) == (int(true), int(taken))


def test_a_foreign_target_is_not_run(directory, tmp_path):
    config = directory / ".hydra" / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("deepexp.data.digits.Digits", "os.system"))
    found = mistakes.draw(read([directory]).runs[0])
    assert isinstance(found, Missing)
    assert "os.system" in found.reason


def test_other_data_than_the_run_had_are_refused(directory):
    path = directory / "provenance.json"
    path.write_text(re.sub('"data_fingerprint": "[0-9a-f]+"', '"data_fingerprint": "00"', path.read_text()))
    assert "not those that the run was trained on" in mistakes.draw(read([directory]).runs[0]).reason


def test_without_a_model_the_page_has_the_numbers_and_the_reason(tmp_path):
    make_run(tmp_path / "a", error_rate=0.02, samples=100)
    out = tmp_path / "out"
    out.mkdir()
    document.write(make([tmp_path / "a"]), out, with_mistakes=True)
    html = (out / "report.html").read_text()
    assert "cannot be run again here" in html
    assert "misclassified samples by their numbers: 0, 1." in html
