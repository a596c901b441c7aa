from pathlib import Path

import pytest
import torch

import deepexp
from deepexp.errors import InputError
from deepexp.models import pretrained


def test_warnings_from_before_the_run_directory_are_in_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> Path:
        raise InputError("pretrained: not here")

    monkeypatch.setattr(pretrained, "weights_file", missing)
    small = ["data.subset=20", "batch_size=20", "max_steps=1", "model.nb_residual_blocks=1", "model.nb_channels=4"]
    words = ["model=monster", *small, "threads=4096", "device=cpu", f"output_dir={tmp_path}"]
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)  # so many would take a minute to start

    result = deepexp.train(words, quiet=True)

    assert result is not None
    log = (result.directory / "run.log").read_text()
    assert log.count("WARNING deepexp.models.pretrained: NO IMAGENET WEIGHTS") == 1
    assert log.count("WARNING deepexp.runtime: threads: 4096 have to share") == 1
