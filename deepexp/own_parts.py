"""A schedule or augmentation of the user's own may lack anything: what is asked of it, and a line for what it lacks."""

import math
from typing import Any

from deepexp import targets
from deepexp.errors import DeepexpError, InputError

_METHODS = {"schedule": ("__call__", "depends_on_horizon", "check"), "augment": ("draw", "apply")}


def check_methods(group: str, made: Any, target: str) -> None:
    """Raise `InputError` if what a target of this group has made cannot be asked all that a run will ask."""
    lacking = [name for name in _METHODS.get(group, ()) if not callable(getattr(made, name, None))]
    if lacking:
        raise InputError(f"{group}._target_: {target} gives {targets.kind(made)} without {' and '.join(lacking)}")


def check_schedule(schedule: Any, total_steps: int) -> None:
    """Raise `InputError` or `ValueError` if a schedule does not fit a run of this length, or begins with no number."""
    try:
        schedule.check(total_steps)
        multiplier = schedule(0, total_steps)
    except (DeepexpError, ValueError):
        raise
    except Exception as error:
        raise InputError(f"schedule: {type(schedule).__name__} fails: {targets.told(error)}") from error
    if not isinstance(multiplier, int | float) or not 0 <= multiplier < math.inf:
        raise InputError(
            f"schedule: {type(schedule).__name__} gives {multiplier!r} for the first update; a number ≥ 0 is needed, "
            "which multiplies optim.lr"
        )
