"""`deepexp bench start`: processes that end with their first update, on small data."""

import json
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from PIL import Image

from deepexp.bench import contest, start
from deepexp.bench.contender import Unsuited
from deepexp.bench.start_ours import PARTS
from deepexp.bench.start_report import Start, StartReport
from deepexp.bench.stopwatch import Stopwatch
from deepexp.cli import main

from .setting import planned

QUICK = ["rounds=1", "batch_size=20", "threads=1", "device=cpu", "json=true"]


def report(**changes):
    ours = [Start(2.0, 2.5, {"importing torch": 2.0, "first step": 0.5}), Start(1.0, 1.5, {"importing torch": 1.5})]
    values = {
        "model": "mnist_net",
        "data": "digits",
        "overrides": [],
        "device": "cpu (2 threads)",
        "names": {"deepexp": "deepexp", "plain": "plain loop"},
        "starts": {"deepexp": ours, "plain": [Start(4.0, 5.0, {}), Start(2.0, 3.0, {})]},
        "first": None,
        "notes": [],
    }
    return StartReport(**{**values, **changes})


def row(shown, begin):
    return next(line[len(begin) :].split() for line in shown.lines() if line.startswith(begin))


@pytest.mark.slow
def test_bench_start_measures_the_parts_of_a_start(capfd, tmp_path, monkeypatch):
    """On picture files: decoded at the first start, then read from a cache of the benchmark's own."""
    random = np.random.default_rng(0)
    folder = tmp_path / "data" / "pictures"
    for index, name in enumerate(["a", "b"] * 10):
        path = folder / ("train" if index < 14 else "test") / name / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (28, 28), dtype=np.uint8)).save(path)
    monkeypatch.chdir(folder.parent)
    began = time.perf_counter()
    assert main(["bench", "start", "data=image_folder", f"data.root={folder}", *QUICK, "batch_size=5"]) == 0
    wall = time.perf_counter() - began
    out, err = capfd.readouterr()
    found = json.loads(out)
    assert "\x1b" not in err and "\r" not in err
    for name in ("deepexp", "plain"):
        (before,), (after,) = (found["seconds"][key][name] for key in ("began", "done"))
        assert 0.3 < before < after < wall, "each imports torch"
    (parts,) = found["parts_seconds"]
    assert set(parts) == set(PARTS) and all(seconds > 0 for seconds in parts.values())
    assert sum(parts.values()) == pytest.approx(found["seconds"]["done"]["deepexp"][0], rel=1e-9)
    assert parts["importing torch"] == max(parts.values())
    assert parts["first step"] == pytest.approx(
        found["seconds"]["done"]["deepexp"][0] - found["seconds"]["began"]["deepexp"][0], rel=0.05, abs=1e-3
    )
    assert found["first_start"]["parts_seconds"]["loading data"] > parts["loading data"]
    assert [path.name for path in folder.parent.iterdir()] == ["pictures"], "a benchmark leaves nothing behind"


def test_embedded_digits_have_no_cache_to_fill():
    assert not start._has_cache(planned()[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lightning", "keras"])
def test_bench_start_measures_a_framework(name, capfd):
    pytest.importorskip(name)
    assert main(["bench", "start", "data.subset=60", f"against={name}", *QUICK]) == 0
    found = json.loads(capfd.readouterr().out)
    assert set(found["seconds"]["done"]) == {"deepexp", name} and found["notes"] == []


@pytest.mark.parametrize(
    "words, expected",
    [
        (["rounds=0"], "rounds: 0 is not allowed; a whole number ≥ 1"),
        (["output_dir=here"], "output_dir=here: bench start makes runs of its own"),
        (["batch_size=0"], "batch_size: 0 is not allowed"),
        (["hydra.verbose=true"], "hydra.verbose: has no effect"),
        (["against=bare"], "against: bare has no start of its own; plain, lightning, keras, all"),
        (["plot=start.pdf"], "plot: start.pdf is not allowed; a file that ends in .png or .svg"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(words, expected, capfd):
    assert main(["bench", "start", *words]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("deepexp: ") and len(err.splitlines()) == 1
    assert expected in err


def test_a_mistake_found_by_the_run_has_no_traceback(capfd, tmp_path):
    for path in (tmp_path / split / name / "picture.png" for split in ("train", "test") for name in ("a", "b")):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"no picture")
    words = ["data=image_folder", f"data.root={tmp_path}", "batch_size=1", "device=cpu"]
    assert main(["bench", "start", *words]) == 2
    err = capfd.readouterr().err
    assert "picture.png" in err and "Traceback" not in err


def test_the_table_has_medians_the_ratio_and_the_parts():
    shown = report()
    assert row(shown, "deepexp ") == "1.50 s 2.00 s 2".split()
    assert row(shown, "plain loop") == "3.00 s 4.00 s 0.50 2".split()
    assert shown.parts() == {"importing torch": 1.5}, "of two rounds, the shorter one"
    assert row(shown, "importing torch") == ["1.50", "s", "100%"]
    assert row(shown, "together") == ["1.50", "s", "100%"]


def test_the_parts_are_those_of_the_round_of_median_length():
    rounds = [Start(seconds, seconds, {"importing torch": seconds}) for seconds in (3.0, 1.0, 2.0)]
    assert report(starts={"deepexp": rounds}).parts() == {"importing torch": 2.0}


def test_the_table_has_a_row_for_the_first_start():
    shown = report(first=Start(7.0, 8.0, {}), notes=["keras is left out: it is not installed"])
    assert row(shown, "deepexp, the first time") == "7.00 s 8.00 s 1".split()
    assert row(shown, "deepexp, data from the cache") == "1.50 s 2.00 s 2".split()
    assert list(shown.lines())[-1].startswith("keras is left out")


def test_the_stopwatch_counts_each_second_in_one_part(monkeypatch):
    clock = iter([1.0, 3.0, 6.0, 10.0, 15.0, 21.0, 28.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    watch = Stopwatch(0.5, "first")
    with watch.during("outer"), watch.during("inner"):  # from 1, and from 3
        pass  # until 6
    watch.go_on_with("last")  # from 15; the outer part ended at 10
    assert watch.read() == 20.5
    assert watch.parts == {"first": 0.5 + 5.0, "outer": 2.0 + 4.0, "inner": 3.0, "last": 6.0}
    assert sum(watch.parts.values()) == 20.5


@pytest.mark.parametrize("word", ["model=resnet", "dropout=0.5", "optim=muon", "optim.weight_decay=0.1"])
def test_options_that_keras_lacks_are_named(word):
    with pytest.raises(Unsuited, match="only"):
        start._for_keras(*planned(word), 10)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ("SGD", {"learning_rate": 0.1, "momentum": 0.0, "nesterov": False})),
        (["optim=nesterov"], ("SGD", {"learning_rate": 0.02, "momentum": 0.9, "nesterov": True})),
        (
            ["optim=adam", "optim.betas=[0.8,0.9]"],
            ("Adam", {"learning_rate": 0.001, "beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-8}),
        ),
    ],
)
def test_keras_gets_the_network_and_all_arguments_of_the_optimizer(words, expected):
    assert start._for_keras(*planned(*words), 10) == {"hidden": 200, "optim": expected}


def test_contenders_that_are_not_installed_are_left_out(monkeypatch):
    monkeypatch.setattr(contest, "_is_installed", lambda package: package == "keras")
    assert start._rivals("all") == (["plain", "keras"], ["lightning is left out: it is not installed"])


def test_scripts_of_other_contenders_import_only_the_network():
    """deepexp must not slow down what it is compared with."""
    code = """
        import sys
        import deepexp.bench.start_plain
        from deepexp.models.mnist_net import MnistNet
        assert not {"hydra", "omegaconf", "yaml", "tensorboard", "rich"} & set(sys.modules)
        print(*sorted(name for name in sys.modules if name.startswith("deepexp")))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    light = {"errors", "process", "process.early", "process.startup", "text", "text.suggest"}
    modules = {name.removeprefix("deepexp.") for name in done.stdout.split()} - {"deepexp"}
    assert {name for name in modules if name.split(".")[0] not in ("bench", "models")} <= light
