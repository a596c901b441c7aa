"""Between Hydra's launcher interface and a sweep: overrides go in, results that sweepers understand come out."""

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from deepexp.errors import InputError, RunFailed
from deepexp.sweep.jobs import Handed, Sweep
from deepexp.sweep.search import Search
from deepexp.sweep.settings import LauncherConfig, launcher_config
from deepexp.sweep.shapes import words_of
from deepexp.sweep.table import Row

OUR_SWEEPER = "hydra_plugins.deepexp_plugins.PointSweeper"

NOT_SEARCHING = (OUR_SWEEPER, "hydra._internal.core_plugins.basic_sweeper.BasicSweeper")
"""Sweepers that choose their points without looking at results."""


class JobFailed(RunFailed):
    """What a sweeper gets instead of the objective of a job that has none."""


def launch(
    sweep: Sweep, settings: dict[str, Any], config: DictConfig, points: Sequence[Sequence[str]]
) -> list[JobReturn]:
    """Run a batch of points; the result of each is the objective, or the reason why there is none."""
    launcher = launcher_config(settings)
    sweeper = config.hydra.sweeper["_target_"]
    searches = sweeper not in NOT_SEARCHING
    if sweeper != OUR_SWEEPER and launcher.halving is not None:  # to others, a paused job has failed
        raise InputError(
            f"hydra.launcher.halving: {launcher.halving} is not allowed with this sweeper, which expects whole runs; "
            "leave it out, or use hydra/sweeper=deepexp, which also searches (hydra.sweeper.search=tpe)"
        )
    chooses = searches or launcher.halving is not None
    rows = sweep.launch(points, Handed(launcher, fixed_keys(config), needs_objective=chooses))
    return [_result(row, list(words), launcher) for row, words in zip(rows, points, strict=True)]


def launch_search(sweep: Sweep, settings: dict[str, Any], config: DictConfig, search: Search) -> list[JobReturn]:
    """Run the points that a search chooses; their results as from `launch`."""
    launcher = launcher_config(settings)
    rows = sweep.search(search, Handed(launcher, fixed_keys(config), needs_objective=True))
    return [_result(row, [], launcher) for row in rows]


def fixed_keys(config: DictConfig) -> set[str]:
    """The keys that were given one value, on the command line or by a preset's `hydra.sweeper.params`."""
    params = OmegaConf.to_container(config.hydra.sweeper.get("params") or OmegaConf.create({}))
    assert isinstance(params, dict)
    words = [*words_of({str(key): value for key, value in params.items()}), *config.hydra.overrides.task]
    parsed = OverridesParser.create().parse_overrides(words)
    swept = {override.get_key_element().lstrip("+~") for override in parsed if override.is_sweep_override()}
    return {override.get_key_element().lstrip("+~") for override in parsed} - swept


def _result(row: Row, words: list[str], launcher: LauncherConfig) -> JobReturn:
    result = JobReturn(overrides=words, working_dir=row.directory)
    if row.summary is None:
        result.status = JobStatus.FAILED
        result.return_value = JobFailed(f"{row.state}: {row.reason}")
    else:
        result.status = JobStatus.COMPLETED
        result.return_value = row.summary[launcher.objective]
    return result
