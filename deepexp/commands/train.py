"""usage: deepexp train [-m] [--cfg job] [KEY=VALUE …]

Train a model on images as the config says; every key can be set, and each group (model, data, optim, schedule, augment,
loss, experiment) chosen by name. What can be chosen: deepexp list

  deepexp train model=monster optim=adam              one run
  deepexp train experiment=lecture_mnist              a preset; with scale=quick or scale=full, smaller or larger
  deepexp train -m experiment=minibatch_size          a preset that is a sweep
  deepexp train resume=outputs/monster/…              go on with a run or a sweep that was cut off
  deepexp train model=resnet epochs=90 resume=auto    go on with what this same command began; if nothing, begin
  deepexp train model=resnet dry_run=true             config, parameters, memory and one batch; trains nothing
  deepexp train -m batch_size=10,100 optim.lr=0.01,0.1
                                                      a sweep: a run for each combination

  -m, --multirun    values with commas, choice(), range() and glob() are swept
  --cfg job         print the composed config and stop

with -m:
  hydra.sweeper.zip=[batch_size,optim.lr]   take values in pairs, not in every combination
  hydra.sweeper.samples=20                  draw points at random, also from interval(0,1), int(interval(1,9)) and
                                            tag(log,interval(1e-4,1))
  hydra.sweeper.search=tpe                  choose each point by the results so far; or gp (needs optuna)
  hydra.sweeper.seed=1                      seed of the drawing or search
  hydra.sweeper.params                      in a preset: its swept keys, {optim.lr: "0.01,0.1"}
  hydra.launcher.jobs=4                     jobs at a time; auto: one a core, or jobs_per_gpu a GPU
  hydra.launcher.jobs_per_gpu=2             jobs that share a GPU, with jobs=auto
  hydra.launcher.time_limit_minutes=30      a job that takes longer is saved and counts as failed
  hydra.launcher.retries=1                  try again what failed or was killed
  hydra.launcher.on_failure=stop            start no further jobs once one has failed
  hydra.launcher.halving=3                  successive halving: look at all jobs on the way, at a third of their epochs,
                                            a ninth, …; only the best third goes on, the others are paused
  hydra.launcher.halving_from=2             epochs before the first look, at least
  hydra.launcher.objective=test_error_rate  what settings are chosen by, instead of the validation error
"""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from deepexp import build, check, weights
from deepexp.check import Plan
from deepexp.config import catalogue
from deepexp.config.compose import check_swept_keys, compose, placed, without_mistakes
from deepexp.config.composed_of import GROUPS
from deepexp.config.composer import Composed
from deepexp.config.overrides import repeated, split, split_flags
from deepexp.data.dataset import Dataset
from deepexp.data.source import Source
from deepexp.disk.storage import place_that_stays
from deepexp.errors import DeepexpError, InputError, Interrupted, Paused, RunFailed
from deepexp.result import Result, load_run
from deepexp.run import circumstances, describe, dry_run, lost_files, resuming, same_command, unsaved
from deepexp.run.describe import Names
from deepexp.run.rundir import RunDirectory, Status, check_entries
from deepexp.runlog import RunLog, check_lengths, heard_early
from deepexp.schema import TrainConfig
from deepexp.text.console import Console
from deepexp.trainer import Trainer
from deepexp.training.interrupt import StopRequest
from deepexp.training.memory import is_out_of_memory, out_of_memory
from deepexp.user_code import own_code

log = logging.getLogger(__name__)

FLAGS = {"-m": (), "--multirun": (), "--cfg": ("job",)}


def main(argv: Sequence[str]) -> int:
    """Train one run, or a sweep, or print a config."""
    overrides, flags = split_flags(argv, FLAGS)
    _check_single_process()
    console = Console()
    for line in repeated(overrides):
        console.warn(line)
    is_sweep = not {"-m", "--multirun"}.isdisjoint(flags)
    if "--cfg" in flags:
        print(_config_alone(overrides, is_sweep), end="")
        return 0
    if is_sweep or _resumes_sweep(overrides):
        from deepexp.sweep.command import sweep

        return sweep(overrides, console)
    train(overrides, console)
    return 0


def _config_alone(overrides: Sequence[str], is_sweep: bool) -> str:
    """The composed config as YAML; the data that it names need not be there."""
    if (place := resuming.place_in(overrides)) is not None:
        saved = "the saved config of each run (its .hydra/config.yaml)"
        raise InputError(f"--cfg: {place} is resumed with {saved}, not with one composed now; leave out resume")
    if is_sweep:
        raise InputError("--cfg: shows one run, and -m makes many; leave out -m and the values with commas")
    overrides = same_command.words_without_resume(overrides)
    composed = compose(overrides)
    check_swept_keys(composed, overrides)
    with _places_told(composed):
        check.check_values(composed.resolved())
    return OmegaConf.to_yaml(composed.config, resolve=True)


@contextlib.contextmanager
def _places_told(composed: Composed) -> Iterator[None]:
    """Add to the lines of an `InputError` in which file of the user's a wrong value stands."""
    try:
        yield
    except InputError as error:
        raise InputError("\n".join(placed(composed, str(error).splitlines()))) from error


def _check_single_process() -> None:
    """Raise `InputError` where torchrun started this command several times: each would train a run of its own."""
    processes = os.environ.get("WORLD_SIZE", "1")
    if "TORCHELASTIC_RUN_ID" in os.environ and processes != "1":
        raise InputError(
            f"torchrun: started {processes} processes, and a run of deepexp has one; start deepexp without torchrun "
            "(deepexp train -m … has the jobs of a sweep share the GPUs)"
        )


def _resumes_sweep(overrides: Sequence[str]) -> bool:
    """Whether `resume=` names a sweep."""
    place = resuming.place_in(overrides)
    if place is None:
        return False
    from deepexp.sweep.directory import is_sweep

    return is_sweep(place)


def train(
    overrides: Sequence[str] | Composed,
    console: Console,
    *,
    at: Path | None = None,
    loaded: Mapping[str, Source] | None = None,
    until: int | None = None,
) -> Result | None:
    """Train as the overrides say and return the result; None from a dry run, which has none.

    `overrides`: words, or the config composed of them.
    `at`: the run directory to make, where a sweep has given it a name. `loaded`: see `build.dataset`. `until`: the
    epoch after which to pause. Raises `InputError`, `RunFailed`, `Interrupted` or `Paused`; a run that had begun has
    recorded that in its directory.
    """
    if isinstance(overrides, Composed):
        composed = overrides
        words: Sequence[str] = composed.overrides
    else:
        words = _with_its_place(overrides, console)
        composed = _composed(words)
    if composed.config.resume is not None:
        resuming.check_place(str(composed.config.resume))
        return resume(Path(os.path.expanduser(composed.config.resume)), composed, console, loaded, until)
    check_swept_keys(composed, words)
    with _places_told(composed):
        config, plan = check.typed_and_planned(composed.resolved())
    with contextlib.ExitStack() as stack:
        stack.enter_context(console)
        with heard_early() as said:
            stack.enter_context(build.session(config, plan))
            if config.dry_run:
                dry_run.show(config, plan, composed, console)
                return None
            weights.resolve(config, plan)
            data = build.dataset(config, plan, loaded)
        files = describe.hydra_files(composed, config)
        with contextlib.nullcontext() if at is None else place_that_stays():
            if at is None:
                run = RunDirectory.create(config.output_dir, composed.run_name, files)
            else:
                run = RunDirectory.create_at(at, files)
            return _run(config, plan, data, composed.choices, run, console, _Earlier(said=said), until)


def _with_its_place(words: Sequence[str], console: Console) -> Sequence[str]:
    """The words; for `resume=auto`, those that go on with the run that they began, or else those that begin one."""
    if not resuming.wants_same_command(words):
        return words
    anew = same_command.words_without_resume(words)
    composed = _composed(anew)
    begun = same_command.Begun() if composed.config.dry_run else same_command.begun_run(composed)
    if begun.why_not is not None:
        console.warn(begun.why_not)
    return anew if begun.place is None else [f"resume={begun.place}"]


def _composed(words: Sequence[str]) -> Composed:
    """The config; one `InputError` for all wrong words, and for wrong values in the other words."""
    words = resuming.with_keys_of_its_own(words)
    try:
        return compose(words)
    except InputError as error:
        keys = [split(word)[1] for word in words]
        if (place := resuming.place_in(words)) is not None:
            RunDirectory.open(place)  # if there is no run, that is the error
            # The run may use another model or data set than the default one, which lacks its keys. They exist, but
            # must not change; `check_changes` says so.
            resuming.check_changes([key for key in keys if key.partition(".")[0] in GROUPS])
        rest, wrong = without_mistakes(words)
        if rest is None:
            raise
        lines = [str(error), *check.problems_beside(rest.resolved(), wrong)]
        raise InputError("\n".join(lines)) from error


def resume(
    directory: Path,
    composed: Composed,
    console: Console,
    loaded: Mapping[str, Source] | None = None,
    until: int | None = None,
) -> Result:
    """Go on with a run from its last checkpoint, with nothing changed but what may be (see `run/resuming.py`)."""
    run = RunDirectory.open(directory)
    check_entries(run.path)
    run.lock()
    with contextlib.ExitStack() as stack:
        stack.callback(run.unlock)
        stack.enter_context(place_that_stays())
        if resuming.is_complete(run, composed):
            console.print(f"{directory} has finished; train it further with {_what_ended(run)}")
            return load_run(directory)
        with heard_early() as said:
            resumed = resuming.resume(run, composed)
            config, plan = resumed.config, resumed.plan
            stack.enter_context(console)
            stack.enter_context(build.session(config, plan))
            data = build.dataset(config, plan, loaded)
            content, lost = resuming.last_checkpoint(run, resumed), []
            if content is not None:
                resuming.check_same_data(run, data, content)
                lost = lost_files.lost_files(run, content)
                lost_files.begin_anew(run, content, lost)
                check_lengths(run, content["logs"])
            resuming.begin(run, resumed, anew=content is None)
        result = _run(config, plan, data, resumed.names, run, console, _Earlier(content, lost, said), until)
        if content is not None and result.steps == content["progress"]["step"]:
            console.print(f"nothing was trained; train it further with {_what_ended(run)}")
        return result


def _what_ended(run: RunDirectory) -> str:
    """What to set to train a finished run further: epochs, unless another setting ended it before all of them."""
    reason = run.read_status().get("reason")
    key, is_early, _ = reason.partition("=") if isinstance(reason, str) else ("", "", "")
    return f"a larger {key} or {key}=null ({reason} ended it)" if is_early else "epochs=N"


@dataclass(frozen=True)
class _Earlier:
    """What there was before a run's log is open: for one that is resumed, also what is left of it."""

    content: dict[str, Any] | None = None
    """Of its checkpoint; None if it has none."""
    lost: Sequence[str] = ()
    """Files that were there beside the checkpoint and are gone."""
    said: Sequence[logging.LogRecord] = ()
    """What was logged before `run.log` was open."""


_NOTHING = _Earlier()


def _run(
    config: TrainConfig,
    plan: Plan,
    data: Dataset,
    names: Names,
    run: RunDirectory,
    console: Console,
    earlier: _Earlier = _NOTHING,
    until: int | None = None,
) -> Result:
    """Train in a run directory, from the beginning or from a checkpoint."""
    content, lost = earlier.content, earlier.lost
    with StopRequest() as stop, _recorded(run, config, console) as run_log:
        run_log.note(earlier.said)
        if content is None:
            catalogue.warn_of_unused(names.items())
        model = build.model(config, plan.shape, len(data.classes), plan.device, load_pretrained=content is None)
        mode = build.data_mode(config, plan, data)
        with contextlib.closing(build.parts(config, plan, data, model, mode)) as parts:
            trainer = Trainer(config, parts, plan.total_steps, run_log, run.checkpoints, stop, until)
            if content is None:
                run_log.cut_back({})  # empty, unless an earlier attempt ended before its first checkpoint
            else:
                trainer.load(content)
            if content is None or lost_files.PROVENANCE in lost:
                origin = describe.provenance(config, plan, data, parts, mode, goes_on=content is not None)
                run.write_json("provenance.json", origin)
            if content is None or lost_files.EVENTS in lost:
                epoch = trainer.progress.epoch
                run_log.describe(describe.for_tensorboard(config, data, names, parts.example(), model, run, epoch))
            if content is not None:
                circumstances.note(run, plan.device, parts.identity, content, lost)
            header = describe.header(config, plan, data, names, model, run)
            horizon = describe.horizon(config, plan, trainer.progress)
            run_log.start(header, horizon, has_validation=data.val is not None)
            with unsaved.told(parts):
                outcome = trainer.fit()
        run_log.finish(
            describe.summary(config, plan, names, model, outcome),
            early=outcome.early,
            model=model,
            predicted=outcome.test.predicted,
            target=data.test.labels,
            classes=data.classes,
        )
    return load_run(run.path)


_STATUSES: Mapping[type, Status] = {Interrupted: "killed-by-signal", Paused: "paused"}
"""Error → the status of a run that it ended, where that is not `failed`."""


@contextlib.contextmanager
def _recorded(run: RunDirectory, config: TrainConfig, console: Console) -> Iterator[RunLog]:
    """The log of a run; an error that ends the run is recorded in its status, and raised on."""
    run_log: RunLog | None = None

    def stopped(status: Status, reason: str) -> None:
        if run_log is None:
            run.set_status(status, reason)
        else:
            run_log.stopped(status, reason)

    try:
        run_log = RunLog(run, console)
        yield run_log
    except KeyboardInterrupt:
        stopped("killed-by-signal", "stopped at once by a second Ctrl-C")
        raise
    except DeepexpError as error:
        stopped(_STATUSES.get(type(error), "failed"), str(error))
        error.shown = run_log is not None
        error.ended(run.path)
        raise
    except (Exception, SystemExit) as error:  # code of the user's own may call exit()
        log.info("traceback", exc_info=True)
        reason = out_of_memory(config) if is_out_of_memory(error) else own_code.told(error)
        stopped("failed", f"{reason} (the traceback is in {run.path / 'run.log'})")
        failed = RunFailed(reason)
        failed.shown = run_log is not None
        failed.ended(run.path)
        raise failed from error
    finally:
        try:
            if run_log is not None:
                run_log.close()
        finally:
            run.unlock()
