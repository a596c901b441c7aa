"""Run directories in the format of real ones, made in milliseconds, with results that the test chooses.

`test_synthetic.py` holds them to what a real run writes.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import yaml

from deepexp.run import event_format

VERSIONS = {
    "python": "3.11.7", "deepexp": "0.1.0", "torch": "2.14.1", "torchvision": "0.29.1",
    "hydra-core": "1.3.8", "omegaconf": "2.3.1", "numpy": "2.4.6", "tensorboard": "2.21.0",
}  # fmt: skip
CHOICES = {"experiment": None, "loss": "cross_entropy", "augment": "none", "schedule": "constant", "optim": "sgd",
           "data": "digits", "model": "mnist_net"}  # fmt: skip
OPTIM = {
    "sgd": {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1, "momentum": 0.0},
    "adam": {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.001, "betas": [0.9, 0.999]},
}
CONFIG = {
    "model": {
        "input": {"channels": None, "height": 28, "width": 28},
        "_target_": "deepexp.models.mnist_net.MnistNet", "dropout": None, "batch_norm": None,
    },
    "data": {
        "root": "data", "mode": "auto", "workers": "auto", "resize": None, "normalise": "channel", "subset": None,
        "replicate": 1, "_target_": "deepexp.data.digits.Digits",
    },
    "optim": {"groups": [], **OPTIM["sgd"]}, "loss": {"_target_": "deepexp.training.losses.CrossEntropy"},
    "batch_size": 100, "drop_last": False, "order": "shuffled", "epochs": 3, "max_steps": None, "max_minutes": None,
    "dropout": None, "batch_norm": None, "init": "default", "init_from": None, "surgery": None,
    "freeze": None, "loss_reduction": "mean", "label_smoothing": 0.0, "class_weights": None,
    "clip_grad_norm": None, "accumulate": 1, "ema": None, "val_fraction": 0.0, "monitor": "error_rate",
    "early_stop": None, "evaluate_every": 1, "log_every": 50, "checkpoint": {"every_minutes": None}, "on_oom": "stop",
    "cache_frozen": True,
    "compile": False, "cuda_graph": "auto",
    "seed": 0, "device": "auto", "precision": "fp32", "deterministic": False, "threads": 1, "name": "mnist_net",
    "output_dir": "outputs", "resume": None, "dry_run": False,
    "schedule": {"_target_": "deepexp.optim.schedules.Constant", "warmup": 0},
    "augment": {"_target_": "deepexp.data.augment.Nothing"},
}  # fmt: skip
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def make_run(
    directory: Path,
    overrides: Mapping[str, object] | None = None,
    *,
    error_rate: float = 0.1,
    val_error_rate: float | None = None,
    rates: Sequence[float] | None = None,
    status: str = "done",
    reason: str | None = None,
    samples: int = 200,
    classes: int = 10,
    predictions: bool = True,
    alone_wrong: Sequence[int] = (),
    seconds_per_epoch: float = 2.0,
    provenance: Mapping[str, object] | None = None,
    summary: Mapping[str, object] | None = None,
    update_losses: Sequence[float] = (),
) -> Path:
    """Make one run directory and its parents.

    `overrides`: key or group → value, as on a command line. `rates`: test error rates of the epochs, else a curve that
    falls to `error_rate`. As many samples are wrong as the final rate says: first those of `alone_wrong`, then those of
    the lowest numbers. `provenance`, `summary`: values that replace the usual ones. `update_losses`: in the event file.
    """
    overrides = dict(overrides or {})
    config, choices = _composed(overrides)
    epochs = int(config["epochs"]) if status == "done" else max(int(config["epochs"]) - 1, 1)
    rates = list(rates) if rates is not None else _falling(error_rate, epochs)
    words = [f"{key}={value}" for key, value in overrides.items()]
    _write_yaml(directory / ".hydra" / "config.yaml", config)
    _write_yaml(directory / ".hydra" / "hydra.yaml", {"runtime": {"choices": choices}})
    _write_yaml(directory / ".hydra" / "overrides.yaml", words)
    _write_json(directory / "status.json", _status(status, reason))
    _write_json(directory / "provenance.json", _provenance(words) | dict(provenance or {}))
    lines = _metrics(config, rates, val_error_rate, samples, seconds_per_epoch)
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if update_losses:
        events = [event_format.scalars({"train/loss": loss}, step, 0.0) for step, loss in enumerate(update_losses, 1)]
        (directory / f"{event_format.NAME}1.vm.1").write_bytes(b"".join(map(event_format.record, events)))
    if status == "done":
        wrong = round(rates[-1] * samples)
        _write_json(directory / "summary.json", _summary(config, choices, lines, wrong, samples) | dict(summary or {}))
        if predictions:
            _write_predictions(directory / "predictions.npz", wrong, samples, classes, alone_wrong)
    return directory


def data_in(root: str, fingerprint: str, **values: object) -> dict[str, Mapping[str, object]]:
    """Arguments of `make_run` for data with this fingerprint in this folder, with further overrides."""
    return {"overrides": {"data.root": root, **values}, "provenance": {"data_fingerprint": fingerprint}}


def make_sweep(
    directory: Path,
    grid: Mapping[str, Sequence[object]],
    error_rate: Callable[[dict[str, object]], float],
    **settings: object,
) -> Path:
    """Make a sweep over `grid` (key → values); `error_rate` gives the rate of a job from its values.

    A job whose rate is NaN has failed. `settings` go to `make_run`.
    """
    jobs = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    names = [",".join(f"{key}={value}" for key, value in job.items()) for job in jobs]
    directory.mkdir(parents=True)
    words = [f"{key}={','.join(map(str, values))}" for key, values in grid.items()]
    _write_json(directory / "sweep.json", {"format": 1, "overrides": words, "choices": {}, "host": "vm", "pid": 1,
                                           "working_directory": "/tmp", "versions": VERSIONS})  # fmt: skip
    entries = []
    for name, job in zip(names, jobs, strict=True):
        rate = error_rate(job)
        failed = np.isnan(rate)
        why = {"status": "failed", "reason": "the loss is nan at step 20"} if failed else {}
        make_run(directory / name, job, error_rate=0.9 if failed else rate, **{**settings, **why})
        entries.append(_entry(name, job, why))
    (directory / "ledger.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return directory


def _composed(overrides: Mapping[str, object]) -> tuple[dict, dict]:
    config, choices = copy.deepcopy(CONFIG), dict(CHOICES)
    for key, value in overrides.items():
        if key in CHOICES:
            choices[key] = value
            if key == "optim":
                config["optim"] = {"groups": [], **OPTIM[value]}
            continue
        *groups, name = key.split(".")
        node = config
        for group in groups:
            node = node[group]
        node[name] = value
    return config, choices


def _falling(last: float, epochs: int) -> list[float]:
    """Error rates that fall from 0.9 to `last`."""
    return [last + (0.9 - last) * 0.3**epoch for epoch in range(1, epochs)] + [last]


def _metrics(config: dict, rates: Sequence[float], val: float | None, samples: int, seconds: float) -> list[dict]:
    return [
        {
            "format": 1, "epoch": epoch, "step": 14 * epoch, "train_loss": 3 * rate + 0.01,
            "train_error_rate": 0.8 * rate, "test_loss": 3.3 * rate + 0.01, "test_errors": round(rate * samples),
            "test_error_rate": round(rate * samples) / samples, "val_loss": None if val is None else 3.2 * rate,
            "val_error_rate": None if val is None else val + rate - rates[-1], "lr": config["optim"]["lr"],
            "grad_norm": 1.5, "samples_per_second": 1400 / seconds, "train_seconds": seconds,
            "test_seconds": seconds / 10, "elapsed_seconds": 1.1 * seconds * epoch,
        }
        for epoch, rate in enumerate(rates, 1)
    ]  # fmt: skip


def _summary(config: dict, choices: dict, lines: list[dict], wrong: int, samples: int) -> dict:
    last = lines[-1]
    return {
        "format": 1, "status": "done", "model": choices["model"], "data": choices["data"], "optim": choices["optim"],
        "seed": config["seed"], "epochs": len(lines), "steps": last["step"], "test_errors": wrong,
        "test_samples": samples, "test_error_rate": wrong / samples, "test_loss": last["test_loss"],
        "val_error_rate": last["val_error_rate"], "best_epoch": None if last["val_error_rate"] is None else len(lines),
        "train_seconds": last["train_seconds"] * len(lines), "total_seconds": last["elapsed_seconds"],
        "samples_per_second": last["samples_per_second"], "device": "cpu (1 thread)", "precision": "fp32",
        "pretrained": None, "parameters": 105506,
    }  # fmt: skip


def _status(status: str, reason: str | None) -> dict:
    end = None if status == "running" else "2026-01-02T03:05:00+00:00"
    return {"format": 1, "status": status, "reason": reason, "host": "elsewhere", "pid": 1,
            "start_time": "2026-01-02T03:04:05+00:00", "resume_times": [], "end_time": end}  # fmt: skip


def _provenance(words: Sequence[str]) -> dict:
    return {
        "format": 1, "command_line": "deepexp train " + " ".join(words), "working_directory": "/tmp", "git": None,
        "versions": VERSIONS, "host": "vm", "platform": "Linux-6.1-x86_64", "cores": 2, "device": "cpu (1 thread)",
        "choices": {"device": "cpu", "threads": 1, "data.mode": "resident"}, "code": {},
        "data_fingerprint": "c6" * 32,
        "test_data_fingerprint": hashlib.sha256(repr(words).encode()).hexdigest(),  # never known to be the same
        "pretrained": None, "pretrained_sha256": None,
    }  # fmt: skip


def _write_predictions(path: Path, wrong: int, samples: int, classes: int, alone_wrong: Sequence[int]) -> None:
    target = np.arange(samples) % classes
    others = [sample for sample in range(samples) if sample not in alone_wrong]
    missed = np.array([*alone_wrong, *others][:wrong], dtype=int)
    predicted = target.copy()
    predicted[missed] = (target[missed] + 1 + missed % 3) % classes
    kind = np.min_scalar_type(classes - 1)
    np.savez_compressed(path, format=1, predicted=predicted.astype(kind), target=target.astype(kind))


def _entry(name: str, job: Mapping[str, object], why: Mapping[str, str]) -> dict:
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return {
        "format": 1, "time": "2026-01-02T03:05:00.000+00:00", "job": name, "config_hash": digest,
        "overrides": [f"{key}={value}" for key, value in job.items()], "state": why.get("status", "done"), "tries": 1,
        "directory": name, "reason": why.get("reason"), "log": None, "seconds": 6.6,
    }  # fmt: skip


def _write_yaml(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("# format: 1\n" + yaml.dump(content, Dumper=_DUMPER, sort_keys=False))


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
