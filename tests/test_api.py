"""`deepexp.train` from Python: what it takes, and that runs do not get into each other's way."""

import threading

import pytest

import deepexp
from deepexp.errors import InputError

SMALL = ["data.subset=100", "epochs=1", "threads=1", "device=cpu"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("model=resnet", "overrides: 'model=resnet' is not allowed; a list of words"),
        ([1], r"overrides: \[1\] is not allowed; a list of words"),
        (["-m", "seed=0,1"], "-m: flags are for the command line; here a sweep is a loop over deepexp.train"),
        (["seed=0,1"], "seed: 0,1 is several values; deepexp train -m runs them all"),
    ],
)
def test_what_is_no_list_of_overrides_is_told(words, expected):
    with pytest.raises(InputError, match=expected) as caught:
        deepexp.train(words)
    assert len(str(caught.value).splitlines()) == 1


def test_runs_of_several_threads_come_one_after_the_other(tmp_path):
    """The same numbers come out as of each alone."""
    errors = {}

    def train(seed: int, folder: str) -> None:
        result = deepexp.train([*SMALL, f"seed={seed}", f"output_dir={tmp_path / folder}"], quiet=True)
        errors[folder, seed] = (result.test_loss, result.test_errors)

    threads = [threading.Thread(target=train, args=(seed, "together")) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(3):
        train(seed, "alone")
        assert errors["together", seed] == errors["alone", seed]
