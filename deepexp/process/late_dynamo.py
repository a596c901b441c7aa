"""torch's compiler, imported when there is something to compile and not by the first optimizer. Standard library only.

Each step of torch's optimizers imports `torch._dynamo`, which takes half as long as torch itself, only to tell a
compiler that is not in use where to stop and what to leave alone. In processes of deepexp's own a stand-in answers
these two calls as the compiler does while nothing is compiled. Anything else that is asked of it loads the real one,
which takes its place.
"""

import functools
import importlib
import importlib.abc
import sys
import threading
import types
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

NAME = "torch._dynamo"
_GIVING_WAY = threading.RLock()


def install() -> None:
    """Have the stand-in imported in the compiler's place, unless the compiler is there already."""
    if NAME not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _StandIn(types.ModuleType):
    """What optimizers ask of `torch._dynamo`; `__getattr__` is called for anything else."""

    def graph_break(self, *arguments: Any, **options: Any) -> None:
        """Tell the compiler to stop here; while none is loaded, nothing has to stop."""
        if _is_loaded():
            _real().graph_break(*arguments, **options)

    def disable(self, function: Any = None, *arguments: Any, **options: Any) -> Any:
        """A function that is called as written, and that a compiler, once there is one, leaves alone."""
        if not isinstance(function, types.FunctionType) or _is_loaded():
            return _real().disable(function, *arguments, **options)
        return _hidden_from_the_compiler(function, lambda: _real().disable(function, *arguments, **options))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python itself reads and sets on a module is the stand-in's own
            raise AttributeError(name)
        return getattr(_real(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("__"):
            super().__setattr__(name, value)
        else:
            setattr(_real(), name, value)


def _hidden_from_the_compiler(function: Callable[..., Any], disabled: Callable[[], Any]) -> Callable[..., Any]:
    hidden: Callable[..., Any] | None = None

    @functools.wraps(function)
    def called(*arguments: Any, **options: Any) -> Any:
        nonlocal hidden
        if hidden is None and _is_loaded():
            hidden = disabled()
        return (hidden or function)(*arguments, **options)

    return called


def _is_loaded() -> bool:
    return not isinstance(sys.modules.get(NAME), _StandIn)


def _real() -> types.ModuleType:
    """The compiler itself, loaded when it is first needed."""
    with _GIVING_WAY:
        if isinstance(sys.modules.get(NAME), _StandIn):
            # A new list: other threads may be going through the old one.
            sys.meta_path = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]
            del sys.modules[NAME]
    return importlib.import_module(NAME)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the stand-in; for a submodule of the compiler, the compiler is loaded first."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `importlib`."""
        if name == NAME:
            found = PathFinder.find_spec(name, path, target)
            if found is not None:
                found.loader = _StandInLoader()
            return found
        if name.startswith(f"{NAME}."):
            _real()
            if module := sys.modules.get(name):  # the compiler has imported it
                # Python uses this one. Set in the namespace, since the module's class may refuse it (`config`).
                vars(module)["__spec__"] = found = ModuleSpec(name, _Present(vars(module)["__spec__"]))
                return found
        return None


class _StandInLoader(importlib.abc.Loader):
    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


class _Present(importlib.abc.Loader):
    """Loads a module that has been imported meanwhile, and restores its own specification."""

    def __init__(self, spec: ModuleSpec | None) -> None:
        self._spec = spec

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        return sys.modules[spec.name]

    def exec_module(self, module: types.ModuleType) -> None:
        vars(module)["__spec__"] = self._spec
