from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from deepexp.errors import InputError
from deepexp.models import pretrained

SMALL = ["data.subset=20", "batch_size=20", "max_steps=1"]
MONSTER = ["model=monster", "model.nb_residual_blocks=1", "model.nb_channels=4", *SMALL]


@pytest.mark.parametrize(("overrides", "shown"), [(MONSTER, "random"), (SMALL, None)], ids=["monster", "none"])
def test_tensorboard_compares_runs_by_where_their_weights_come_from(
    run, overrides: list[str], shown: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: str) -> Path:
        raise InputError("pretrained: not here")

    monkeypatch.setattr(pretrained, "weights_file", missing)  # which `model.pretrained=auto` looks for
    directory = run(overrides).directory
    events = EventAccumulator(str(directory)).Reload().PluginTagToContent(metadata.PLUGIN_NAME)
    compared_by = metadata.parse_session_start_info_plugin_data(events[metadata.SESSION_START_INFO_TAG]).hparams
    assert (compared_by["pretrained"].string_value if "pretrained" in compared_by else None) == shown
