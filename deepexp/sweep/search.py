"""A search: the next setting to try, chosen by the results of those before it.

The samplers are Optuna's. A search saves nothing itself: it is resumed from the sweep's ledger. Nothing is run here.
"""

import importlib.metadata
import importlib.util
import itertools
import math
import random
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from deepexp.errors import InputError
from deepexp.run.identity import HOW
from deepexp.runtime import derive_seed
from deepexp.sweep import shapes
from deepexp.sweep.shapes import Space, key_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

Method = Literal["tpe", "gp"]
"""Tree-structured Parzen estimators (Bergstra et al. 2011), or a Gaussian process (Snoek et al. 2012)."""

Setting = tuple[str, ...]
"""An override of every key but `seed`."""

_AT_RANDOM = 10  # settings that are drawn before a sampler goes by results
_ATTEMPTS = 10  # how often a sampler is asked again after it has suggested a setting that was tried


@dataclass(frozen=True)
class Trial:
    """A setting and its error rate, which is None while it is not known."""

    setting: Setting
    value: float | None


class Search:
    """A space of settings, the method to search it by, and how many settings to try.

    Each setting is a function of the seed and of the trials before. So with one job at a time, a resumed search chooses
    what it would have chosen uninterrupted; with several, their order of ending, and so the trials, may differ.
    """

    def __init__(self, space: Space, method: Method, count: int, seed: int) -> None:
        """`InputError` if there is nothing to choose from, or no Optuna."""
        if importlib.util.find_spec("optuna") is None:
            raise InputError(
                f"hydra.sweeper.search: {method} needs optuna, which is not installed; pip install optuna, "
                "or leave it out for points at random"
            )
        self.space, self.method, self.seed = space, method, seed
        self.blocks = [list(dict.fromkeys(block)) for block in space.blocks]
        self.combinations = math.prod([len(block) for block in self.blocks] + [axis.size for axis in space.intervals])
        """How many settings there are; infinite if an interval is not one of whole numbers."""
        if self.combinations == 1:
            raise InputError(
                f"hydra.sweeper.search: {method} has nothing to choose from; give a key several values or an interval, "
                "as 'optim.lr=tag(log,interval(1e-4,1))'"
            )
        self.count = int(min(count, self.combinations))
        """How many settings are tried; no more than there are."""

    @property
    def keys(self) -> list[str]:
        """The keys that are searched over."""
        return [axis.key for axis in self.space.axes if axis.is_swept and axis not in self.space.repeated]

    def described(self) -> dict[str, str | None]:
        """What `sweep.json` records of the search."""
        return {"method": self.method, "optuna": importlib.metadata.version("optuna")}

    def setting_of(self, overrides: Sequence[str]) -> Setting | None:
        """The setting of a job with these overrides; None if this search does not contain it.

        A sweep may have appended overrides of its own. Keys that do not change a result (`HOW`) may have other values.
        """
        given = {key_of(override): override for override in reversed(overrides)}
        given |= {axis.key: axis.values[0] for axis in self.space.axes if axis.key in HOW and not axis.is_swept}
        try:
            parts = [tuple(given[key] for key in _keys(block)) for block in self.blocks]
            drawn = [given[axis.key] for axis in self.space.intervals]
            seed = tuple(given[axis.key] for axis in self.space.repeated)
        except KeyError:
            return None
        known = all(part in block for part, block in zip(parts, self.blocks, strict=True))
        known &= all(axis.number(word) is not None for axis, word in zip(self.space.intervals, drawn, strict=True))
        return (*itertools.chain(*parts), *drawn) if known and seed in self.space.seeds else None

    def next(self, trials: Sequence[Trial]) -> Setting | None:
        """A setting that was not tried yet; None once there are enough of them, or none is found."""
        if len(trials) >= self.count:
            return None
        tried = {trial.setting for trial in trials}
        for attempt in range(_ATTEMPTS):
            setting = self._suggested(trials, derive_seed(self.seed, "search", len(trials), attempt))
            if setting not in tried:
                return setting
        numbers = random.Random(derive_seed(self.seed, "left", len(trials)))
        if math.isinf(self.combinations):  # GP may suggest one end of an interval again and again
            drawn = (shapes.drawn(self.blocks, self.space.intervals, numbers) for _ in range(_ATTEMPTS))
            return next((setting for setting in drawn if setting not in tried), None)  # six digits can draw one twice
        countable = range(int(min(self.combinations, sys.maxsize)))
        places = numbers.sample(countable, len(tried) + 1)  # so many that at least one was not tried
        return next(setting for setting in map(self._setting_at, places) if setting not in tried)

    def _setting_at(self, place: int) -> Setting:
        """The setting of this number, where the number of settings is finite."""
        chosen: list[str] = []
        for block in self.blocks:
            place, number = divmod(place, len(block))
            chosen += block[number]
        for axis in self.space.intervals:
            place, number = divmod(place, int(axis.size))
            chosen.append(axis.override(axis.ends[0] + number))
        return tuple(chosen)

    def _suggested(self, trials: Sequence[Trial], seed: int) -> Setting:
        import optuna
        from optuna.trial import TrialState, create_trial

        distributions = self._distributions()
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # its messages would break the progress bars
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study = optuna.create_study(direction="minimize", sampler=self._sampler(seed % 2**32))
                for trial in trials:
                    state = TrialState.RUNNING if trial.value is None else TrialState.COMPLETE
                    past = self._params(trial.setting)
                    study.add_trial(
                        create_trial(state=state, value=trial.value, params=past, distributions=distributions)
                    )
                params: dict[str, Any] = study.ask(distributions).params
        finally:
            optuna.logging.set_verbosity(verbosity)
        chosen = [block[params[_name(block)]] for block in self.blocks]
        return (*itertools.chain(*chosen), *(axis.override(params[axis.key]) for axis in self.space.intervals))

    def _sampler(self, seed: int) -> "BaseSampler":
        """A new sampler for each setting, so that no state of it has to be saved."""
        from optuna import samplers

        if self.method == "gp":
            return samplers.GPSampler(seed=seed, n_startup_trials=_AT_RANDOM)
        return samplers.TPESampler(seed=seed, n_startup_trials=_AT_RANDOM, multivariate=True, constant_liar=True)

    def _distributions(self) -> "dict[str, BaseDistribution]":
        """Name of a parameter → its distribution; for a block, over the index of the alternative."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        found: dict[str, BaseDistribution] = {
            _name(block): CategoricalDistribution(range(len(block))) for block in self.blocks
        }
        for axis in self.space.intervals:
            first, last = axis.ends
            if axis.is_whole:
                found[axis.key] = IntDistribution(int(first), int(last), log=axis.is_log)
            else:
                found[axis.key] = FloatDistribution(first, last, log=axis.is_log)
        return found

    def _params(self, setting: Setting) -> dict[str, float | None]:
        """A setting as parameters of Optuna."""
        given = {key_of(override): override for override in setting}
        params: dict[str, float | None] = {
            _name(block): block.index(tuple(given[key] for key in _keys(block))) for block in self.blocks
        }
        return params | {axis.key: axis.number(given[axis.key]) for axis in self.space.intervals}


def _keys(block: Sequence[Setting]) -> list[str]:
    return [key_of(override) for override in block[0]]


def _name(block: Sequence[Setting]) -> str:
    return ",".join(_keys(block))
