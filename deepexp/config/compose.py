"""From overrides to a composed config, with Hydra; what is wrong with the overrides is reported together.

`composer.py` composes and judges; this module sets Hydra's state, which the whole process shares.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.version import VersionBase

from deepexp import paths
from deepexp.config import conf_files, hydra_keys, presets
from deepexp.config.composer import Composed, Composer, wrong_keys
from deepexp.config.overrides import quote_paths, split
from deepexp.errors import InputError, raise_any


def compose(overrides: Sequence[str]) -> Composed:
    """The config of one job: conf/train.yaml with its groups.

    It may be called again and again, inside another Hydra program too, whose state it leaves alone. For options that
    were composed before, files are read again only if one has changed: 10 ms instead of 200.
    Raises `InputError` with one line for each unknown key, group option, override that cannot be read, value that is a
    sweep, interpolation that leads nowhere, and YAML file of the user's that is broken.
    """
    with _hydra() as loader:
        return Composer(loader).compose(_prepared(overrides))


@contextlib.contextmanager
def composing() -> Iterator[Callable[[Sequence[str]], Composed]]:
    """`compose` for the many jobs of a sweep: whether files have changed is checked once."""
    with _hydra() as loader:
        composer = Composer(loader)
        yield lambda overrides: composer.compose(_prepared(overrides))


def without_mistakes(overrides: Sequence[str]) -> tuple[Composed | None, list[str]]:
    """(the config of all overrides but the wrong ones, or None if there is none; the keys of the wrong ones)."""
    with _hydra() as loader:
        composer = Composer(loader)
        found, _ = composer.judged(_prepared(overrides))
        try:
            return composer.compose([text for text in found if not found[text]]), wrong_keys(found)
        except InputError:
            return None, wrong_keys(found)


def expand_sweep(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each job of a grid: every combination of the swept values, the last one varying fastest.

    `a,b`, `choice()`, `range()` and `glob()` are swept; `interval()` has no grid and is an `InputError`, as is what
    cannot be read. Without a swept value it is one job.
    """
    with _hydra() as loader:
        return Composer(loader).expand(quote_paths(overrides))


def check_jobs(jobs: Sequence[Sequence[str]]) -> None:
    """Judge the overrides of all jobs of a sweep; one `InputError` with a line for each problem of any job.

    Jobs with the same group options are composed once, so that a large grid is judged in little time.
    """
    with _hydra() as loader:
        composer = Composer(loader)
        raise_any([line for job in jobs for line in composer.problems(_prepared(job))])


def multirun(task: Any, overrides: Sequence[str]) -> None:
    """Let the configured sweeper give its points to its launcher, which gets the `task`."""
    with _hydra():
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        hydra.multirun(conf_files.CONFIG, task, _prepared(overrides), with_log_configuration=False)


def check_swept_keys(composed: Composed, words: Sequence[str]) -> None:
    """Refuse a preset that is a sweep, and settings of one, where one run is composed; `words` as the user gave them.

    Raises `InputError` with the command that runs all of it.
    """
    hydra_keys.check_effect(words)
    keys = [split(word)[1] for word in words]
    of_sweeps = [key for key in keys if key.startswith(hydra_keys.OF_SWEEPS)]
    raise_any([f"{key}: is for a sweep; add -m, or leave it out" for key in of_sweeps])
    swept = composed.hydra.sweeper.get("params") or {}
    line = presets.missing_sweep(words, composed.choices.get(presets.GROUP), [str(key) for key in swept])
    raise_any([line] if line else [])


def placed(composed: Composed, lines: Sequence[str]) -> list[str]:
    """Lines about keys of a config, each behind the file and line of the user's where its key got its value, if any."""
    with _hydra() as loader:
        places = Composer(loader).places(composed, {_key(line) for line in lines}, of_user=True)
    return [f"{places[_key(line)]}{line}" for line in lines]


def _key(line: str) -> str:
    """The key that a line about a config begins with."""
    return line.partition(": ")[0]


def _prepared(overrides: Sequence[str]) -> list[str]:
    """The overrides as Hydra gets them."""
    return presets.with_scale(quote_paths(overrides))


@contextlib.contextmanager
def _hydra() -> Iterator[ConfigLoader]:
    """Hydra with our conf as the main one. A program around us may be using Hydra itself: its state is put back."""
    paths.make_working_directory_importable()
    compatibility = VersionBase.instance()
    outer, outer_base = GlobalHydra.instance().hydra, compatibility.getbase()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(paths.CONF_DIR), job_name="deepexp", version_base="1.3"):
            yield GlobalHydra.instance().config_loader()
    finally:
        GlobalHydra.instance().hydra = outer
        compatibility.version_base = outer_base
