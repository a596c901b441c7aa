import pytest

from deepexp.text.suggest import did_you_mean, edit_distance, nearest

OPTIMIZERS = ["adadelta", "adagrad", "adam", "adamax", "adamw", "lbfgs", "momentum", "muon", "nadam", "sgd"]


@pytest.mark.parametrize(
    ("typed", "candidates", "meant"),
    [
        ("optmi", ["model", "data", "optim", "schedule"], "optim"),  # two letters swapped
        ("monstre", ["mnist_net", "resnet", "monster", "torchvision"], "monster"),
        ("resent", ["mnist_net", "resnet", "monster"], "resnet"),
        ("ADAM", OPTIMIZERS, "adam"),
        ("NADAM", OPTIMIZERS, "nadam"),
        ("adamm", OPTIMIZERS, "adam"),
        ("batch-size", ["batchsize", "batch_size"], "batch_size"),  # neither a hyphen nor a capital is a mistake
        ("batchsize", ["epochs", "batch_size"], "batch_size"),
        ("optimizer", ["model", "optim"], "optim"),  # the beginning is right
        ("dataset", ["data", "device"], "data"),
        ("monst", ["mnist_net", "monster"], "monster"),
        ("net", ["monster", "mnist_net"], "mnist_net"),  # so is the end
        ("adma", OPTIMIZERS, "adam"),
    ],
)
def test_the_nearest_candidate_is_suggested(typed, candidates, meant):
    assert nearest(typed, candidates) == meant
    assert did_you_mean(typed, candidates) == f" (did you mean '{meant}'?)"


@pytest.mark.parametrize("typed", ["", "x", "lr", "zzzz", "transformer", "gpt"])
def test_nothing_is_suggested_where_nothing_is_near(typed):
    assert nearest(typed, ["model", "data", "optim"]) is None
    assert did_you_mean(typed, ["model", "data", "optim"]) == ""


def test_nothing_is_suggested_without_candidates():
    assert nearest("adam", []) is None


def test_the_first_of_equally_near_candidates_is_taken():
    assert nearest("adax", ["adam", "adaw"]) == "adam"
    assert nearest("adax", ["adaw", "adam"]) == "adaw"


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        ("kitten", "sitting", 3),
        ("optmi", "optim", 1),
        ("ca", "ac", 1),
        ("abc", "abc", 0),
        ("", "abc", 3),
        ("ca", "abc", 3),
    ],
)
def test_edit_distance(a, b, distance):
    """Levenshtein's example, a swap, and a case with 3 here but 2 in the unrestricted Damerau–Levenshtein distance."""
    assert edit_distance(a, b) == edit_distance(b, a) == distance
