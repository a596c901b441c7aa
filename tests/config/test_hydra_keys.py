"""Hydra's own keys on the command line."""

import pytest

from deepexp.config import hydra_keys
from deepexp.errors import InputError


def test_a_key_of_a_sweep_is_not_swept_itself():
    words = ["hydra.sweeper.zip=seed,optim.lr", "seed=0,1", "hydra.launcher.jobs=1,2"]
    with pytest.raises(InputError) as caught:
        hydra_keys.check_single(words)
    assert str(caught.value).splitlines() == [
        "hydra.sweeper.zip: seed,optim.lr is several values, and it takes one; a list is written "
        "hydra.sweeper.zip=[seed,optim.lr]",
        "hydra.launcher.jobs: 1,2 is several values, and it takes one; a list is written hydra.launcher.jobs=[1,2]",
    ]
    hydra_keys.check_single(["hydra.sweeper.zip=[seed,optim.lr]", "hydra.launcher.jobs=2", "hydra.sweeper.seed='1,2'"])
