"""The shape of the code, read from its text: who may import whom, how long a file is, what a YAML file lists."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest
import yaml

from deepexp import paths

PACKAGE = paths.PACKAGE_DIR
ROOT = Path(__file__).resolve().parent.parent
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "plugins" not in path.parts
}
YAML = sorted(path for path in paths.CONF_DIR.rglob("*.yaml"))


def imports(module, *, everywhere=True):
    """The modules that a module imports; `everywhere=False`: only at its top level, and not for type checkers."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports hide who imports whom"
            modules = {name for alias in node.names if (name := f"{node.module}.{alias.name}") in MODULES}
            found |= modules if len(modules) == len(node.names) else modules | {node.module}
    return found


def inside(module, *rooms):
    return any(module == f"deepexp.{room}" or module.startswith(f"deepexp.{room}.") for room in rooms)


def test_modules_and_their_imports_are_found():
    assert {"deepexp", "deepexp.cli", "deepexp.commands.list", "deepexp.schema"} <= set(MODULES)
    assert "deepexp.errors" in imports("deepexp.cli")
    assert "deepexp.config.help_text" in imports("deepexp.cli")
    assert "deepexp.config.help_text" not in imports("deepexp.cli", everywhere=False)


# Room (package or module) → the parts of deepexp that it may import; none of them may import the room.
MAY_KNOW = {
    "errors": [],
    "paths": [],
    "process": ["process"],
    "text": ["text", "errors", "metrics"],
    "text.suggest": [],
    "disk": ["disk", "errors"],
    "disk.yaml_words": [],
    "pages": ["pages", "disk"],
    "models": ["models", "disk.storage", "errors", "text"],
    "data": ["data", "disk.storage", "errors", "process", "runtime", "text"],
    "optim": ["optim", "disk.yaml_words", "text.suggest"],
    "schema": ["disk.yaml_words", "errors", "text.annotations", "text.suggest"],
    "config": ["config", "commands", "disk", "errors", "paths", "schema", "text"],
    "config.catalogue": ["paths"],
    "config.composed_of": ["config.catalogue", "config.overrides", "disk.yaml_file", "errors", "schema"],
    "config.options": ["disk.yaml_file", "errors", "schema"],
    "config.overrides": ["errors", "text.suggest"],
    "config.presets": ["config.catalogue", "config.overrides", "text.suggest"],
    "cli": [
        *("__version__", "commands", "config.help_text", "errors", "process.late_dynamo", "process.startup", "sweep"),
        *("text.characters", "text.suggest"),
    ],
    "user_code": [
        *("user_code", "checkpoint", "data", "disk.yaml_file", "disk.yaml_words", "errors", "paths", "runtime"),
        *("schema", "text"),
    ],
    "runtime": ["errors", "process", "text"],
    "checkpoint": ["disk.storage", "errors"],
    "step": ["data", "errors", "models", "optim", "runtime", "training.compiled", "training.losses", "training.memory"],
    "training": ["training", "data", "models", "optim", "runtime", "schema", "step", "text"],
    "training.compiled": [],
    "training.evaluation": ["data", "models", "step", "training.losses", "training.memory"],
    "training.frozen_features": ["data", "optim", "runtime", "step", "text"],
    "training.losses": [],
    "training.memory": ["schema"],
    "training.updates": ["data", "optim", "step"],
    "cuda_graph": ["cuda_graph", "data", "optim", "step", "text", "training"],
    "parts": ["data", "optim", "run.identity", "step", "training"],
    "run.identity": ["disk.yaml_words", "errors", "paths", "schema", "user_code"],
    "run.mixed_code": ["text"],
    "runlog": ["disk", "errors", "metrics", "run.event_format", "run.events", "run.pictures", "run.rundir", "text"],
    "report": [
        *("report", "checkpoint", "config.composed_of", "config.overrides", "disk", "errors", "metrics", "pages"),
        *("paths", "run.event_format", "run.mixed_code", "run.rundir", "sweep.ledger", "text"),
        "data",  # for the class names of published data sets
        "inference.retest",  # for the plot of the worst mistakes
    ],
    "lecture": [
        *("lecture", "build", "check", "config", "data", "disk", "errors", "models", "optim", "pages", "paths"),
        *("report", "runtime", "schema", "sweep", "text"),
    ],
}


@pytest.mark.parametrize("room", MAY_KNOW)
def test_rooms_import_only_what_they_may(room):
    for module in MODULES:
        if inside(module, room):
            ours = {name for name in imports(module) if name.split(".")[0] == "deepexp"} - {"deepexp"}
            strangers = {name for name in ours if not inside(name, *MAY_KNOW[room])}
            assert not strangers, f"{module} must not import {strangers}"


@pytest.mark.parametrize(
    "room", ["models", "data", "optim", "step", "trainer", "checkpoint", "runtime", "runlog", "schema", "report"]
)
def test_rooms_that_must_not_import_hydra(room):
    for module in MODULES:
        if inside(module, room):
            found = {name.split(".")[0] for name in imports(module)}
            assert not found & {"hydra", "omegaconf"}, f"{module} must not import Hydra"


def test_build_is_the_only_caller_of_instantiate():
    callers = [
        name for name, path in MODULES.items() if re.search(r"\binstantiate\(", path.read_text(encoding="utf-8"))
    ]
    assert callers == ["deepexp.build"]


@pytest.mark.parametrize("room", ["trainer", "build", "step", "models", "data", "optim", "runlog", "checkpoint"])
def test_rooms_that_must_not_import_the_commands(room):
    for module in MODULES:
        if inside(module, room):
            assert not any(inside(name, "commands", "cli") for name in imports(module)), module


LIGHT = [
    *("", "__main__", "cli", "commands", "commands.completion", "commands.list", "config", "config.catalogue"),
    *("config.help_text", "config.overrides", "config.presets", "disk", "disk.yaml_words", "errors", "paths"),
    *("process", "process.early", "process.late_dynamo", "process.orphans", "process.startup", "schema"),
    *("sweep.in_server", "sweep.server", "text", "text.suggest"),
]


@pytest.mark.parametrize("name", LIGHT)
def test_light_modules_import_only_the_standard_library(name):
    """At their top level; `test_cli.py` looks at everything that is imported in the end."""
    import sys

    module = f"deepexp.{name}".rstrip(".")
    found = {imported.split(".")[0] for imported in imports(module, everywhere=False)}
    assert found <= {"deepexp", *sys.stdlib_module_names}


@pytest.mark.parametrize(
    "path", [*MODULES.values(), *sorted((ROOT / "tests").rglob("*.py"))], ids=lambda p: str(p.relative_to(ROOT))
)
def test_no_file_has_more_than_400_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_docstring(module):
    assert ast.get_docstring(ast.parse(MODULES[module].read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", YAML, ids=lambda p: str(p.relative_to(paths.CONF_DIR)))
def test_every_yaml_begins_with_a_comment(path):
    """`deepexp list` shows it. A `# @package` line, if there is one, must come first, and then the comment."""
    lines = path.read_text(encoding="utf-8").splitlines()
    first = lines[1] if lines[0].startswith("# @package") else lines[0]
    assert re.match(r"# \S", first)
    assert "@package" not in first
    assert not any(line.startswith("# @package") for line in lines[1:])


TARGETS = [path for path in YAML if path.parent.name in ("model", "data", "optim", "schedule", "augment")]
PASSED_BY_BUILD = {
    "model": {"shape", "classes"},
    "data": {"root"},
    "optim": {"params"},
    "schedule": set(),
    "augment": set(),
}
COMMON = {"model": {"input"}, "data": set(), "optim": {"groups"}, "schedule": set(), "augment": set()}
# Arguments of torch's optimizers that choose an implementation, or another update rule.
LEFT_OUT = {"foreach", "maximize", "capturable", "differentiable", "fused", "decoupled_weight_decay"}


@pytest.mark.parametrize("path", TARGETS, ids=lambda p: str(p.relative_to(paths.CONF_DIR)))
def test_every_yaml_lists_all_arguments_of_its_target(path):
    """So each can be set without `+`, and a misspelt one is refused."""
    group = path.parent.name
    listed = yaml.safe_load(path.read_text(encoding="utf-8"))
    module, _, name = listed["_target_"].rpartition(".")
    signature = inspect.signature(getattr(importlib.import_module(module), name))
    arguments = {
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    written = {key for key in listed if not key.startswith("_") and key not in ("defaults", *COMMON[group])}
    left_out = LEFT_OUT if group == "optim" else set()
    assert written >= arguments - PASSED_BY_BUILD[group] - left_out
    assert written <= arguments - PASSED_BY_BUILD[group]


def test_fork_rng_is_always_given_its_devices():
    """Otherwise torch initialises every GPU, and warns if there are several."""
    unnamed = [name for name, path in MODULES.items() if "fork_rng()" in path.read_text(encoding="utf-8")]
    assert not unnamed
