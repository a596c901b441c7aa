"""What a `_target_` in YAML names: a class or a function, of deepexp, of an installed package, or beside `./conf`.

Its arguments in the YAML are checked here, too; `build.py` calls it.
"""

import inspect
import logging
import sys
import typing
from collections.abc import Callable, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra.utils import get_object

from deepexp import paths
from deepexp.disk.yaml_words import as_yaml
from deepexp.errors import InputError, raise_any
from deepexp.schema import Component, keys_of
from deepexp.text.annotations import refusal
from deepexp.text.suggest import did_you_mean
from deepexp.user_code import own_code


def find(name: str) -> Callable[..., Any]:
    """The object of a dotted name. Raises `ImportError` with one line: why, and where if in the user's own code."""
    paths.make_working_directory_importable()
    hydras = logging.getLogger("hydra.utils")  # it would log the error in three lines, without the place
    was_disabled, hydras.disabled = hydras.disabled, True
    try:
        found: Callable[..., Any] = get_object(name)
    except (Exception, SystemExit) as error:  # importing the user's own module may raise anything
        raise ImportError(_reason(name, error.__cause__ or error)) from error
    finally:
        hydras.disabled = was_disabled
    if not callable(found):
        raise ImportError(f"it is {own_code.kind(found)}, and a class or function is needed")
    changed = _changed(name)
    if changed:
        raise ImportError(changed)
    return found


def of(group: str, component: Component) -> Callable[..., Any]:
    """The class or function that the config of a group names. Raises `InputError` that names the key."""
    if not component.target:
        raise InputError(f"{group}._target_: was refused")
    try:
        return find(component.target)
    except ImportError as error:
        raise InputError(f"{group}._target_: {component.target!r} cannot be imported ({error})") from error


def signature_of(group: str, component: Component) -> inspect.Signature:
    """The arguments that a target takes. Raises `InputError` where Python does not know them, as of some in C."""
    try:
        return inspect.signature(of(group, component))
    except ValueError:
        raise InputError(
            f"{group}._target_: {component.target} does not say which arguments it takes; "
            "call it in a function of your own, and name that"
        ) from None


_PARTIAL = ("optim", "loss")
"""Groups whose target may be called later with further arguments: `_partial_: true`."""

_REMEDIES = {
    "loss": " (_partial_: true in its YAML leaves logits and labels to deepexp)",
    "optim": " (_partial_: true in its YAML leaves the parameters to deepexp)",
    "schedule": " (schedulers of torch do not fit, as they need an optimizer; `deepexp list schedule` shows what does)",
}
"""What to do if a target lacks an argument, as functions and those of torch do without `_partial_`."""


def check_arguments(group: str, component: Component, given: Mapping[str, Any]) -> None:
    """Raise `InputError` for a typo in an argument, or a value of another type than the target's own annotation.

    `given`: arguments that deepexp gives to it, beside those of its YAML.
    """
    target = of(group, component)
    arguments = {name: value for name, value in component.arguments.items() if not name.startswith("_")}
    signature = signature_of(group, component)
    for name in arguments.keys() & given.keys():
        raise InputError(f"{group}.{name}: is given to {component.target} by deepexp; leave it out of its YAML")
    for name in sorted(signature.parameters.keys() & set(keys_of(group)) - given.keys()):
        raise InputError(
            f"{group}.{name}: is a key of deepexp's own, which {component.target} would never be given; "
            f"rename its argument {name!r}"
        )
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values())
    known = [name for name in signature.parameters if name not in given]
    unknown = [] if takes_any else [name for name in arguments if name not in signature.parameters]
    raise_any(
        [
            f"{group}.{name}: {component.target} takes no argument of this name{did_you_mean(name, known)}"
            for name in unknown
        ]
    )
    if group not in _PARTIAL and component.arguments.get("_partial_"):
        raise InputError(f"{group}._partial_: is for optimizers and losses, which are called later; leave it out")
    bind = signature.bind_partial if component.arguments.get("_partial_") else signature.bind
    try:
        bind(**arguments, **given)
    except TypeError as error:
        more = f" (deepexp gives it {' and '.join(given)})" if given else _REMEDIES.get(group, "")
        raise InputError(f"{group}: {component.target}: {error}{more}") from None
    _check_types(group, component, target)


def _check_types(group: str, component: Component, target: Callable[..., Any]) -> None:
    """Raise `InputError` with a line for each argument that is of another type than its target's own annotation."""
    hints = _type_hints(target)
    raise_any(
        [
            f"{group}.{name}: {as_yaml(value)} is not allowed; {wanted}"
            for name, value in component.arguments.items()
            if name in hints and (wanted := refusal(hints[name], value))
        ]
    )


def _type_hints(target: Callable[..., Any]) -> dict[str, Any]:
    """Annotations of a target's arguments; none if they cannot be evaluated."""
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError):  # names that only a type checker knows
        return {}


_known: dict[str, tuple[Any, tuple[int, int]]] = {}
"""Module → the specification that it was imported by, and (time of last write in ns, bytes) of its file then."""


def _changed(name: str) -> str | None:
    """A line if the file of a module of the user's own was edited since it was imported, as happens in notebooks."""
    module = module_of(name)
    file = getattr(module, "__file__", None)
    if module is None or file is None or "site-packages" in file or Path(file).is_relative_to(paths.PACKAGE_DIR):
        return None
    remedy = f"restart Python or importlib.reload(sys.modules[{module.__name__!r}])"
    package = name.partition(".")[0]
    there = PathFinder.find_spec(package)
    root = getattr(sys.modules.get(package), "__file__", None)
    if there is not None and there.origin and root and Path(there.origin).resolve() != Path(root).resolve():
        return f"it was imported as {root} before, and here it is {there.origin}; {remedy}"
    if not Path(file).exists():
        return None
    status = Path(file).stat()
    now = (status.st_mtime_ns, status.st_size)
    spec, then = _known.setdefault(module.__name__, (module.__spec__, now))
    if spec is not module.__spec__:  # it was reloaded
        _known[module.__name__] = (module.__spec__, now)
    elif then != now:
        return f"{paths.shown(Path(file))} has changed since it was imported; {remedy}"
    return None


def module_of(name: str) -> ModuleType | None:
    """The module in which a dotted name was found; None if none of them has been imported."""
    parts = name.split(".")
    loaded = [".".join(parts[:end]) for end in range(1, len(parts)) if ".".join(parts[:end]) in sys.modules]
    return sys.modules[loaded[-1]] if loaded else None


def _reason(name: str, cause: BaseException) -> str:
    if isinstance(cause, ModuleNotFoundError) and cause.name and f"{name}.".startswith(f"{cause.name}."):
        parent, _, part = cause.name.rpartition(".")
        return f"{parent} has no {part!r}" if parent else f"no module {part!r} is here or installed"
    if isinstance(cause, SyntaxError) and cause.filename:
        return f"{paths.shown(Path(cause.filename))}:{cause.lineno}: {type(cause).__name__}: {cause.msg}"
    if isinstance(cause, SystemExit):
        return f"{own_code.told(cause)}; what only a script does belongs under if __name__ == '__main__':"
    return own_code.told(cause)
