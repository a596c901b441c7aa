"""The commands: one module each, imported when it is called.

A command's module has `main(argv) -> exit status`, and its docstring is the command's help. This file is the table of
them and imports nothing else, since every start of deepexp reads it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """What is known of a command without importing it."""

    module: str
    summary: str
    words: tuple[str, ...] = ()
    """Words that may come first, for shell completion."""
    keys: tuple[str, ...] = ()
    """Options of its own, for shell completion."""
    path_keys: tuple[str, ...] = ()
    """Those of its options whose values are paths."""
    takes_paths: bool = False
    """Whether words that are no option are paths, for shell completion."""
    takes_keys: bool = False
    """Whether it takes the config keys of `train`, for its help and for shell completion."""
    has_topics: bool = False
    """Whether some of its words have a help of their own: `help_on(words)` in its module, which is quickly imported."""


COMMANDS = {
    "train": Command("deepexp.commands.train", "train a model; with -m, a sweep over many settings", takes_keys=True),
    "list": Command("deepexp.commands.list", "what can be chosen for each part of an experiment"),
    "bench": Command(
        "deepexp.commands.bench",
        "how fast deepexp is on this machine",
        words=("step", "epoch", "sweep", "start"),
        path_keys=("plot",),
        takes_keys=True,
    ),
    "lecture": Command(
        "deepexp.commands.lecture",
        "the lecture's figures and experiments, each from one command",
        words=(
            *("all", "batch_norm_statistics", "batch_vs_loop", "curvature", "dropout_mask", "gradient_descent"),
            *("initialisation", "loaders", "parameter_groups", "residual_block", "strided_identity", "surgery"),
            *("trajectories", "update_rules"),
        ),
        path_keys=("to",),
        has_topics=True,
    ),
    "eval": Command(
        "deepexp.commands.eval",
        "the test error of a run's model, its confusions and worst mistakes",
        keys=("run", "checkpoint", "device", "data.root", "mistakes", "to", "json"),
        path_keys=("run", "data.root", "to"),
    ),
    "predict": Command(
        "deepexp.commands.predict",
        "the classes that a run's model predicts for picture files",
        keys=("run", "input", "checkpoint", "device", "top", "invert", "json", "csv"),
        path_keys=("run", "input"),
        takes_paths=True,
    ),
    "export": Command(
        "deepexp.commands.export",
        "a run's model as a file that works without deepexp, checked against it",
        keys=("run", "format", "fold_bn", "checkpoint", "to", "check", "json"),
        path_keys=("run", "to"),
    ),
    "report": Command(
        "deepexp.commands.report",
        "tables, tests and plots over many runs",
        keys=("to", "baseline", "diff", "latex", "mistakes"),
        path_keys=("to",),
        takes_paths=True,
    ),
    "runs": Command(
        "deepexp.commands.runs",
        "what is in outputs/; removes old checkpoints",
        keys=("sort", "json", "prune", "older_than", "confirm"),
        takes_paths=True,
    ),
    "completion": Command("deepexp.commands.completion", "tab completion", words=("bash", "fish", "zsh")),
}
