"""deepexp's plugins for Hydra: light declarations, since every Hydra program imports this module."""

from collections.abc import Sequence
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from deepexp import paths


class UserConf(SearchPathPlugin):
    """Appends the user's `./conf` behind the package's, so that it adds options and never replaces one."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Leave the search paths of other Hydra programs alone: theirs do not begin at deepexp's conf."""
        ours = any(item.provider == "main" and item.path == str(paths.CONF_DIR) for item in search_path.get_path())
        theirs = paths.user_conf_dir()
        if ours and theirs is not None:
            search_path.append(provider="./conf", path=str(theirs))


class ProcessLauncher(Launcher):
    """Runs each job in a process of its own; `settings` are the keys of `conf/hydra/launcher/deepexp.yaml`."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(
        self,
        *,
        hydra_context: HydraContext,  # noqa: ARG002
        task_function: TaskFunction,
        config: DictConfig,
    ) -> None:
        """Take what `launch` needs; the task is the sweep of `deepexp train -m`."""
        self.sweep = task_function
        self.config = config

    def launch(
        self,
        job_overrides: Sequence[Sequence[str]],
        initial_job_idx: int,  # noqa: ARG002
    ) -> Sequence[JobReturn]:
        """Run a batch of jobs; the return value of each is the objective."""
        from deepexp.sweep.launcher import launch

        return launch(self.sweep, self.settings, self.config, job_overrides)

    def search(self, search: Any) -> Sequence[JobReturn]:
        """Run jobs that a `deepexp.sweep.search.Search` chooses one after the other."""
        from deepexp.sweep.launcher import launch_search

        return launch_search(self.sweep, self.settings, self.config, search)


class PointSweeper(Sweeper):
    """Grids, pairs, random samples, searches; `settings` are the keys of `conf/hydra/sweeper/deepexp.yaml`."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher that the points go to."""
        from hydra.core.plugins import Plugins

        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Sequence[JobReturn]:
        """Give the launcher the points that the words of the command line and the settings describe."""
        from deepexp.sweep.sweeper import sweep

        return sweep(self.settings, self.launcher, arguments)
