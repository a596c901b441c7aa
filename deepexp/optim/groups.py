"""Parameter groups: one optimizer, different options for different parameters.

Rules come from `optim.groups`: `{pattern, lr_mult, weight_decay, …}`. Also here: which options a
rule may name, and what an optimizer refuses altogether.
"""

import inspect
import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from deepexp.disk.yaml_words import as_yaml
from deepexp.optim.patterns import first_match
from deepexp.text.suggest import did_you_mean

Rule = Mapping[str, Any]
OptimizerFactory = Callable[..., torch.optim.Optimizer]  # a class, or a partial of one

_MOST_BLAMED = 3  # arguments; of more, nobody is told which


def parameter_groups(model: nn.Module, rules: Sequence[Rule], base_lr: float) -> list[dict[str, Any]]:
    """Groups for a `torch.optim` optimizer, of parameters with their names.

    The first group holds what no rule matches (and is left out when that is nothing), then comes
    one group a rule. Each has `lr` and, for schedules to start from, `initial_lr`: `base_lr` times
    the rule's `lr_mult`. Other keys of a rule become options of its group. Parameters that are
    frozen now are included, since they may move later.
    Raises `ValueError` for patterns that take no parameter.
    """
    parameters = list(model.named_parameters())
    owners = first_match([name for name, _ in parameters], [rule["pattern"] for rule in rules], "optim.groups")
    groups = []
    for owner in (None, *range(len(rules))):
        members = [entry for entry, its in zip(parameters, owners, strict=True) if its == owner]
        if members:
            rule = {} if owner is None else rules[owner]
            lr = base_lr * rule.get("lr_mult", 1.0)
            groups.append({"params": members, "lr": lr, "initial_lr": lr, **_options(rule)})
    return groups


def check_group_options(optimizer: OptimizerFactory, rules: Sequence[Rule]) -> None:
    """Raise `ValueError` with a line for everything in the rules that the optimizer cannot follow.

    Their options must be among `group_options`, and their values pass the optimizer's own checks.
    """
    allowed = ["pattern", "lr_mult", *group_options(optimizer)]
    problems = []
    for index, rule in enumerate(rules):
        problems += [f"optim.groups[{index}]{text}" for text in _problems(optimizer, rule, allowed)]
    if problems:
        raise ValueError("\n".join(problems))


def group_options(optimizer: OptimizerFactory) -> list[str]:
    """The arguments that may differ between groups, besides the learning rate (see `lr_mult`).

    They are those that the optimizer looks up per group; for a partial, only those that it was given,
    which leaves out switches that the config does not show.
    """
    defaults = optimizer([_probe()]).defaults
    listed = getattr(optimizer, "keywords", defaults)
    return [name for name in listed if name in defaults and name != "lr"]


def check_arguments(optimizer: OptimizerFactory) -> None:
    """Raise `ValueError` for the arguments of a partial, with a line for each that is to blame.

    To blame are a learning rate that no schedule can scale, even if the optimizer would take it, and the fewest
    arguments in place of which the optimizer would take its own defaults.
    """
    cls: OptimizerFactory = getattr(optimizer, "func", optimizer)
    arguments: dict[str, Any] = dict(getattr(optimizer, "keywords", {}))
    lines = []
    if "lr" in arguments and not _can_be_scaled(arguments["lr"]):
        lines.append(f"optim.lr: {as_yaml(arguments['lr'])} is not allowed; a number ≥ 0")
        arguments["lr"] = 0.1
    error = _refused(cls, **arguments)
    if error is not None:
        lines += _blamed(cls, arguments) or [_told(error)]
    if lines:
        raise ValueError("\n".join(lines))


def _can_be_scaled(lr: object) -> bool:
    return isinstance(lr, (int, float)) and not isinstance(lr, bool) and 0 <= lr < math.inf


def _blamed(cls: OptimizerFactory, arguments: Mapping[str, Any]) -> list[str]:
    """A line for each of the fewest arguments without which the optimizer takes the rest; none if it never does."""

    def refused_without(names: Collection[str]) -> Exception | None:
        return _refused(cls, **{name: value for name, value in arguments.items() if name not in names})

    defaults = {name: parameter.default for name, parameter in inspect.signature(cls).parameters.items()}
    optional = [n for n in arguments if n in defaults and defaults[n] is not inspect.Parameter.empty]
    choices = (names for size in range(1, _MOST_BLAMED + 1) for names in itertools.combinations(optional, size))
    blamed = next((names for names in choices if refused_without(names) is None), ())
    lines = []
    for name in blamed:
        value, own = arguments[name], defaults[name]
        error = refused_without(set(blamed) - {name})
        assert error is not None  # else fewer would be to blame
        what = f"optim.{name}: {as_yaml(value)} is not allowed ({_told(error)})"
        lines.append(f"{what}; {getattr(cls, '__name__', cls)}'s default is {as_yaml(own)}")
    return lines


def _told(error: Exception) -> str:
    """On one line, which is never empty: an optimizer of the user's own may say nothing, or much."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}".removesuffix(": ")


def _refused(optimizer: OptimizerFactory, **options: Any) -> Exception | None:
    cls = getattr(optimizer, "func", optimizer)
    try:
        _check_lengths(cls, {**getattr(optimizer, "keywords", {}), **options})
        made: object = optimizer([_probe()], **options)
    except Exception as error:  # an optimizer may raise anything for wrong arguments
        return error
    if not isinstance(made, torch.optim.Optimizer):
        return ValueError(f"what it makes is no torch.optim.Optimizer, but a {type(made).__name__}")
    return _step_problem(made)


def _check_lengths(cls: OptimizerFactory, arguments: Mapping[str, Any]) -> None:
    """Raise `ValueError` for another number of values than a tuple of torch's has, which it may pass over."""
    if str(getattr(cls, "__module__", None)).startswith(("torch.", "deepexp.")):
        for name, parameter in inspect.signature(cls).parameters.items():
            value, own = arguments.get(name, parameter.default), parameter.default
            if isinstance(own, tuple) and not (isinstance(value, Sequence) and len(value) == len(own)):
                raise ValueError(f"{len(own)} values are needed")


def _step_problem(made: torch.optim.Optimizer) -> ValueError | None:
    """Why `step` cannot be called (without arguments, unless it is torch's LBFGS); None if it can."""
    name = type(made).__name__
    if inspect.unwrap(type(made).step) is inspect.unwrap(torch.optim.Optimizer.step):
        return ValueError(f"{name} has no step of its own")
    if not isinstance(made, torch.optim.LBFGS):
        try:
            inspect.signature(made.step).bind()
        except TypeError as error:
            return ValueError(f"{name}.step: {error}, but it is called without arguments")
    return None


def refusals(optimizer: OptimizerFactory, rules: Sequence[Rule], precision: str) -> list[str]:
    """What in the config this optimizer refuses, a line each.

    An optimizer's class says so in an attribute `refuses`, a mapping from `groups` or the name of a
    precision to the reason.
    """
    cls = getattr(optimizer, "func", optimizer)
    refuses: Mapping[str, str] = getattr(cls, "refuses", {})
    lines = []
    if rules and "groups" in refuses:
        lines.append(
            f"optim.groups: {cls.__name__} takes none ({refuses['groups']});"
            " leave the list empty or choose another optimizer"
        )
    if precision in refuses:
        lines.append(
            f"precision: {cls.__name__} does not work in {precision} ({refuses[precision]});"
            " choose another precision or another optimizer"
        )
    return lines


def _problems(optimizer: OptimizerFactory, rule: Rule, allowed: Sequence[str]) -> list[str]:
    problems = [
        f".{name}: there is no such option{did_you_mean(name, allowed)}; allowed are {', '.join(allowed)}"
        for name in rule
        if name not in allowed
    ]
    if not isinstance(rule.get("pattern"), str):
        problems.append(": needs a pattern, which is a glob on parameter names")
    lr_mult = rule.get("lr_mult", 1.0)
    if not isinstance(lr_mult, int | float) or not 0 <= lr_mult < math.inf:
        problems.append(f".lr_mult: {as_yaml(lr_mult)} is not allowed; a number ≥ 0")
    return problems or _value_problems(optimizer, _options(rule))


def _value_problems(optimizer: OptimizerFactory, options: Mapping[str, Any]) -> list[str]:
    error = _refused(optimizer, **options)
    if error is None:
        return []
    given = ", ".join(f"{name}={as_yaml(value)}" for name, value in options.items())
    return [f": {given} is not allowed ({_told(error)})"]


def _options(rule: Rule) -> dict[str, Any]:
    return {name: value for name, value in rule.items() if name not in ("pattern", "lr_mult")}


def _probe() -> nn.Parameter:
    """A parameter that every optimizer takes, to try its arguments with."""
    return nn.Parameter(torch.zeros(1, 1))
