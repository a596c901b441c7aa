"""The trained weights that a run begins with: found, downloaded and checked before it begins.

`build.model` loads them: those of a model's own (`model.pretrained`), of `init_from`, and of `surgery`.
"""

from pathlib import Path

from deepexp import build, checkpoint, paths
from deepexp.check import Plan
from deepexp.data.source import Shape
from deepexp.errors import InputError
from deepexp.models import pretrained, surgery, transfer
from deepexp.run.rundir import RunDirectory
from deepexp.schema import TrainConfig
from deepexp.user_code import targets


def resolve(config: TrainConfig, plan: Plan) -> None:
    """Replace `model.pretrained=auto` in the config itself, so that the saved config says what was done.

    Raises `InputError` if weights that the config names cannot be had, before the run begins.
    """
    fetch(config, *plan.takes)
    arguments = config.model.component.arguments
    if arguments.get("pretrained") == "auto":
        arguments["pretrained"] = pretrained.resolve("auto")


def fetch(config: TrainConfig, shape: Shape, classes: int) -> None:
    """Find or download the weights that the config names; the paths of `init_from` and `surgery` become absolute.

    Raises `InputError` if they cannot be had, or do not fit a model for pictures of this shape and so many classes.
    `model.pretrained=auto` names none.
    """
    arguments = config.model.component.arguments
    places = {"model.pretrained": arguments.get("pretrained"), "init_from": config.init_from}
    places |= {f"surgery[{index}].from": graft.from_ for index, graft in enumerate(config.surgery or [])}
    for key, place in places.items():
        if isinstance(place, str):
            _check_ended(key, place)
    own_fetch = getattr(targets.of("model", config.model.component), "fetch_pretrained", None)
    if own_fetch is not None and arguments.get("pretrained") != "auto":
        try:
            own_fetch(**arguments)
        except InputError as error:
            raise InputError(f"model.{error}") from error
    if config.init_from is None and not config.surgery:
        return
    made = build.model(config, shape, classes, "meta")
    make_absolute(config)
    if config.init_from is not None:
        transfer.fitting(made, Path(config.init_from), classes)
    surgery.fitting(made, build.grafts(config))


def make_absolute(config: TrainConfig) -> None:
    """Replace the paths of `init_from` and `surgery` in the config itself, so that it means the same anywhere."""
    if config.init_from is not None:
        config.init_from = paths.absolute(config.init_from)
    for graft in config.surgery or []:
        graft.from_ = paths.absolute(graft.from_)


def _check_ended(key: str, place: str) -> None:
    """Raise `InputError` for a run that is still training: each job of a sweep would begin with another checkpoint."""
    directory = Path(paths.absolute(place))
    if directory.is_dir() and RunDirectory(directory).is_alive():
        raise InputError(
            f"{key}: {directory} is still running; wait until it ends, "
            f"or give a copy of its {Path('checkpoints', checkpoint.LAST)}"
        )
