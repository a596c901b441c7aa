import numpy as np
from sklearn.metrics import confusion_matrix as reference

from deepexp.metrics import confusion_matrix


def test_confusion_matrix_against_scikit_learn():
    random = np.random.default_rng(0)
    predicted = random.integers(0, 7, 500)
    target = random.integers(0, 6, 500)  # a class that never occurs
    matrix = confusion_matrix(predicted, target, 7)
    assert matrix.tolist() == reference(target, predicted, labels=range(7)).tolist()


def test_confusion_matrix_takes_small_integers():
    few = np.array([250, 3], dtype=np.uint8)
    assert confusion_matrix(few, few, 251)[250, 250] == 1
