import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score
from sklearn.metrics import confusion_matrix as reference

from deepexp.metrics import balanced_error_rate, calibration_error, confusion_matrix, top_error_rate

CLASSES = 12


def answers(samples=700):
    """Probabilities that are right more often than not, and the true classes, of which some are rare."""
    random = np.random.default_rng(1)
    target = np.minimum(random.geometric(0.3, samples) - 1, CLASSES - 1)
    logits = random.normal(size=(samples, CLASSES)) + 2.0 * np.eye(CLASSES)[target]
    odds = np.exp(2 * logits)
    return (odds / odds.sum(1, keepdims=True)).astype(np.float32), target


def test_confusion_matrix_against_scikit_learn():
    random = np.random.default_rng(0)
    predicted = random.integers(0, 7, 500)
    target = random.integers(0, 6, 500)  # a class that never occurs
    matrix = confusion_matrix(predicted, target, 7)
    assert matrix.tolist() == reference(target, predicted, labels=range(7)).tolist()


def test_confusion_matrix_takes_small_integers():
    few = np.array([250, 3], dtype=np.uint8)
    assert confusion_matrix(few, few, 251)[250, 250] == 1


def test_the_balanced_error_rate_against_scikit_learn():
    probabilities, target = answers()
    predicted = probabilities.argmax(1)
    cells = confusion_matrix(predicted, target, CLASSES + 1)  # a class that never occurs
    assert balanced_error_rate(cells) == pytest.approx(1 - balanced_accuracy_score(target, predicted), rel=1e-12)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_error_rate_of_several_guesses_against_scikit_learn(count):
    probabilities, target = answers()
    expected = 1 - top_k_accuracy_score(target, probabilities, k=count, labels=range(CLASSES))
    assert top_error_rate(probabilities, target, count) == pytest.approx(expected, rel=1e-12)


def test_of_equal_probabilities_the_first_count():
    probabilities = np.full((4, 4), 0.25)
    assert top_error_rate(probabilities, np.arange(4), 3) == 0.25


def test_the_calibration_error_against_its_definition():
    probabilities, target = answers()
    surest, is_right = probabilities.max(1).astype(float), probabilities.argmax(1) == target
    expected = 0.0
    for index in range(15):
        inside = (surest > index / 15) & (surest <= (index + 1) / 15)
        if inside.any():
            expected += inside.sum() / len(target) * abs(is_right[inside].mean() - surest[inside].mean())
    assert calibration_error(probabilities, target) == pytest.approx(expected, rel=1e-9)
    assert expected > 0.01


def test_probabilities_that_say_how_often_they_are_right_have_no_calibration_error():
    probabilities = np.tile([0.75, 0.25], (400, 1))
    target = np.repeat([0, 0, 0, 1], 100)
    assert calibration_error(probabilities, target) == pytest.approx(0, abs=1e-12)
    assert calibration_error(np.tile([1.0, 0.0], (400, 1)), target) == pytest.approx(0.25)
