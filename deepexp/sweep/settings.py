"""How the jobs of a sweep are run: the keys below `hydra.launcher`, with their types and ranges."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from deepexp import schema
from deepexp.schema import Problems, key


@dataclass
class LauncherConfig:
    """What `conf/hydra/launcher/deepexp.yaml` sets."""

    jobs: int | Literal["auto"] = key("auto", "jobs at a time; auto: one a core, or jobs_per_gpu a GPU", minimum=1)
    jobs_per_gpu: int = key(1, "jobs that share a GPU, with jobs=auto", minimum=1)
    on_failure: Literal["continue", "stop"] = key("continue", "whether further jobs are started after one has failed")
    retries: int = key(0, "how often a job that failed or was killed is tried again", minimum=0)
    time_limit_minutes: float | None = key(None, "a job that takes longer is saved and counts as failed", above=0.0)
    halving: int | None = key(None, "let only one setting in so many go on at each look; null: all", minimum=2)
    halving_from: int = key(1, "epochs before the first look, at least", minimum=1)
    objective: Literal["val_error_rate", "test_error_rate"] = key(
        "val_error_rate", "what settings are chosen by; the test error only if it is asked for by name"
    )


def launcher_config(node: Mapping[str, Any]) -> LauncherConfig:
    """The keys as a dataclass; one `InputError` for all that is wrong with them."""
    problems = Problems()
    config: LauncherConfig = schema.section(LauncherConfig, node, "hydra.launcher.", problems)
    if config.halving is None and config.halving_from != 1:
        problems.add("hydra.launcher.halving_from: has an effect only with halving; add hydra.launcher.halving=3")
    problems.raise_any()
    return config
