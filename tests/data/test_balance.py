"""Weights of classes are those of scikit-learn, and do not change the mean loss."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from deepexp.data.balance import balanced_weights
from deepexp.data.digits import Digits
from deepexp.errors import InputError

from ..conftest import Run


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    labels = torch.tensor([0] * 1 + [1] * 20 + [2] * 7)
    weights = balanced_weights(labels, 3)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels.numpy())
    torch.testing.assert_close(weights, torch.tensor(expected, dtype=torch.float32))
    assert weights[labels].mean().item() == pytest.approx(1, rel=1e-6)


def test_a_class_that_does_not_occur_has_weight_1() -> None:
    assert balanced_weights(torch.tensor([0, 0, 2, 2]), 4).tolist() == [0.5, 1, 0.5, 1]


def test_a_run_with_balanced_classes_equals_one_with_their_weights_given(run: Run) -> None:
    words = ["data=digits", "epochs=1"]
    train, _ = Digits().load()
    weights = balanced_weights(train.labels, 10).tolist()
    assert len(set(weights)) > 1
    balanced = run([*words, "class_weights=balanced"])
    given = run([*words, f"class_weights={weights}"])
    alike = run([*words, f"class_weights={[1.0] * 10}"])
    losses = [result.metrics[0]["train_loss"] for result in (balanced, given, alike)]
    assert losses[0] == losses[1] != losses[2]
    assert losses[2] == pytest.approx(run(words).metrics[0]["train_loss"], rel=1e-5)
    text = (balanced.directory / "run.log").read_text()
    assert f"class weights: 0 {weights[0]:.3g}, 1 {weights[1]:.3g}, " in text


@pytest.mark.parametrize(
    "weights", ["[1,2]", "[0,0,0,0,0,0,0,0,0,0]", "[]", "[1e39,1,1,1,1,1,1,1,1,1]", "[1e-60,0,0,0,0,0,0,0,0,0]"]
)
def test_a_list_has_a_weight_for_each_class_and_one_that_counts(run: Run, weights: str) -> None:
    told = r"^class_weights: \[.*\] is not allowed; 10 numbers, not all of them 0, for 0, 1, 2 and 7 more$"
    with pytest.raises(InputError, match=told):
        run(["data=digits", f"class_weights={weights}"])
