"""A config small enough to be measured in a test."""

from omegaconf import OmegaConf

from deepexp import check
from deepexp.config.compose import compose


def planned(*overrides):
    """(config, plan) of the default experiment on a hundred digits."""
    words = ["threads=1", "device=cpu", "data.subset=100", "batch_size=20", *overrides]
    return check.typed_and_planned(OmegaConf.to_container(compose(words).config, resolve=True))
