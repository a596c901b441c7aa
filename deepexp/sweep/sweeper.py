"""What `PointSweeper` does when Hydra calls it: from the words and the keys below `hydra.sweeper` to points."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hydra.core.utils import JobReturn

from deepexp import schema
from deepexp.config import overrides
from deepexp.errors import InputError
from deepexp.schema import Problems, key
from deepexp.sweep import shapes
from deepexp.sweep.search import Method, Search
from deepexp.sweep.shapes import Space


@dataclass
class SweeperConfig:
    """What `conf/hydra/sweeper/deepexp.yaml` sets."""

    params: dict[str, Any] = key({}, "swept keys of a preset, with their values as on the command line")
    zip: list[str] = key([], "keys whose values are taken in pairs")
    samples: int | None = key(None, "draw so many points at random", minimum=1)
    search: Method | None = key(None, "choose each of these points by the results so far, with Optuna")
    seed: int = key(0, "seed of the random points or the search", minimum=0)


class SearchLauncher(Protocol):
    """A launcher that can be given a search, too."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all these points."""

    def search(self, search: Search) -> Sequence[JobReturn]:
        """Run points that the search chooses."""


def sweep(settings: Mapping[str, Any], launcher: SearchLauncher, words: Sequence[str]) -> Sequence[JobReturn]:
    """Give the launcher all points at once, so that all are checked before the first starts; or the search for them."""
    found = points(settings, words)
    return launcher.search(found) if isinstance(found, Search) else launcher.launch(found, initial_job_idx=0)


def points(settings: Mapping[str, Any], words: Sequence[str]) -> list[shapes.Point] | Search:
    """The points that the words and settings describe, or the search for them. Raises `InputError`."""
    config = _config(settings)
    everything = overrides.quote_paths([*shapes.words_of(config.params), *words])
    if config.search is not None:
        if config.samples is None:
            wanted = "needs the number of settings to try; add hydra.sweeper.samples=20"
            raise InputError(f"hydra.sweeper.search: {config.search} {wanted}")
        return Search(Space.of(everything, config.zip), config.search, config.samples, config.seed)
    if config.samples is not None:
        return shapes.samples(everything, config.samples, config.seed, config.zip)
    return shapes.grid(everything, config.zip)


def _config(settings: Mapping[str, Any]) -> SweeperConfig:
    """The keys as a dataclass; one `InputError` for all that is wrong with them."""
    problems = Problems()
    rest = {name: value for name, value in settings.items() if name not in ("params", "zip")}
    config: SweeperConfig = schema.section(SweeperConfig, rest, "hydra.sweeper.", problems)
    problems.raise_any()
    params, zipped = settings.get("params") or {}, settings.get("zip") or []
    if not isinstance(params, Mapping):
        raise InputError(f"hydra.sweeper.params: {params!r} is not allowed; a mapping of keys to values")
    if not isinstance(zipped, Sequence) or isinstance(zipped, str):
        raise InputError(f"hydra.sweeper.zip: {zipped!r} is not allowed; a list of keys, as [batch_size,optim.lr]")
    config.params, config.zip = dict(params), [str(name) for name in zipped]
    return config
