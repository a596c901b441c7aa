"""Reading the YAML files of a run."""

import os

import pytest
import yaml
from omegaconf import OmegaConf

from deepexp.disk.yaml_file import SAFE_LOADER, read_mapping, text_of

UNDECODABLE = os.fsdecode(b"data/\xff") if os.name != "nt" else "data/\udcff"


def test_a_path_that_is_not_utf_8_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "config.yaml"
    content = {"data": {"root": UNDECODABLE}, "seed": 0}
    path.write_text(OmegaConf.to_yaml(OmegaConf.create(content)), encoding="utf-8")
    assert read_mapping(path) == content


@pytest.mark.parametrize("sign", ["\x85", "\u2028", "\u2029", "\n", "\r", "\ufeff"])
def test_a_config_is_read_as_it_was_written(tmp_path, sign):
    """With any of the characters that YAML may take for a line break, or for a byte order mark."""
    path = tmp_path / "config.yaml"
    content = {f"z{sign}": [f"{sign}a{sign}{sign}b {sign} c", 1e-3, "1e-3", None], "a": {"é": "ü"}, "empty": {}}
    path.write_text(text_of(OmegaConf.create(content)), encoding="utf-8")
    assert read_mapping(path) == content


@pytest.mark.skipif(SAFE_LOADER is yaml.SafeLoader, reason="there is no other parser")
def test_libyaml_refuses_a_path_that_is_not_utf_8():
    with pytest.raises(yaml.YAMLError, match="invalid Unicode"):
        yaml.load(yaml.safe_dump(UNDECODABLE), SAFE_LOADER)
