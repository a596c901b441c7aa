"""`deepexp export`: a file that gives the logits of the model wherever it is loaded, or no file."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import deepexp
from deepexp import checkpoint, cli
from deepexp.commands.export import main
from deepexp.data.digits import Digits
from deepexp.errors import InputError, RunFailed
from deepexp.inference import export as module
from deepexp.inference.retest import retest
from deepexp.models.fold import Folded

WORDS = ["threads=1", "device=cpu", "data.subset=300"]
LOAD_PT2 = """
import sys, json, numpy, torch
notes = {"deepexp.json": ""}
model = torch.export.load(sys.argv[1], extra_files=notes).module()
pictures = torch.from_numpy(numpy.load(sys.argv[2]))
numpy.save(sys.argv[3], model(pictures).numpy())
assert not any(name.partition(".")[0] == "deepexp" for name in sys.modules)
print(json.loads(notes["deepexp.json"])["classes"][7])
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    words = [*WORDS, "epochs=2", "batch_norm=true", "val_fraction=0.1", "ema=0.9"]
    return deepexp.train([*words, f"output_dir={tmp_path_factory.mktemp('outputs')}"], quiet=True)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    words = [*WORDS, "model=resnet", "model.depth=8", "data.normalise=none", "epochs=1"]
    return deepexp.train([*words, f"output_dir={tmp_path_factory.mktemp('outputs')}"], quiet=True)


@pytest.fixture
def directory(trained, tmp_path):
    """A copy, for tests that change it."""
    return shutil.copytree(trained.directory, tmp_path / "run")


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def exported(capsys, *words):
    assert main([*words, "json=true"]) == 0
    return json.loads(capsys.readouterr().out)


def onnx_answers(path, pictures):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"pictures": pictures.numpy()})[0])


def test_onnx_gives_the_logits_of_the_run(trained, capsys):
    found = exported(capsys, f"run={trained.directory}")
    expected = retest(trained.directory)
    assert found["file"] == "mnist_net.onnx" and found["bytes"] == os.path.getsize("mnist_net.onnx")
    assert found["pictures_compared"] == 359 and found["no_test_pictures"] is None and found["other_answers"] == 0
    assert 0 < found["largest_difference"] < 1e-5 < found["largest_logit"]
    for pictures in (expected.images, expected.images[:1]):
        answers = onnx_answers("mnist_net.onnx", pictures).softmax(1)
        torch.testing.assert_close(answers, expected.probabilities[: len(pictures)], rtol=1e-4, atol=1e-6)
    notes = {item.key: item.value for item in onnx.load("mnist_net.onnx").metadata_props}
    assert json.loads(notes["classes"]) == [str(digit) for digit in range(10)]
    assert notes["checkpoint"] == "last.pt" and notes["batch_norm"] == "3 of 3 folded" and notes["averaged"] == "true"
    assert notes["run"] == trained.directory.name and notes["model"] == "mnist_net" and notes["data"] == "digits"


def test_pt2_works_without_deepexp(resnet, tmp_path, capsys):
    """Also with another normalisation, and pictures in the size of the data."""
    found = exported(capsys, f"run={resnet.directory}", "format=pt2", f"to={tmp_path / 'net.pt2'}")
    assert found["input_shape"] == [1, 8, 8] and found["batch_norms_folded"] == found["batch_norms"] == 7
    _, test = Digits().load()
    np.save(tmp_path / "pictures.npy", test.pictures(torch.arange(359)).numpy())
    paths = [str(tmp_path / name) for name in ("net.pt2", "pictures.npy", "answers.npy")]
    done = subprocess.run([sys.executable, "-c", LOAD_PT2, *paths], capture_output=True, text=True, check=True)
    assert done.stdout == "7\n"
    answers = torch.from_numpy(np.load(tmp_path / "answers.npy")).softmax(1)
    torch.testing.assert_close(answers, retest(resnet.directory).probabilities, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("fold", "left"), [("true", 0), ("false", 3)])
def test_batch_normalisation_is_folded_if_asked_for(trained, capsys, fold, left):
    found = exported(capsys, f"run={trained.directory}", f"fold_bn={fold}")
    kinds = [node.op_type for node in onnx.load("mnist_net.onnx").graph.node]
    assert kinds.count("BatchNormalization") == left
    assert (found["batch_norms"], found["batch_norms_folded"]) == (3, 3 - left)


def test_checkpoint_best_exports_other_weights(trained, capsys):
    """The test perturbs its weights, so that they differ."""
    path = trained.directory / "checkpoints" / "best.pt"
    content = checkpoint.load(path)
    for average in content["ema"]["averages"].values():
        if average.is_floating_point():
            average.mul_(1.5)
    checkpoint.save(path, content)
    assert exported(capsys, f"run={trained.directory}", "checkpoint=best")["checkpoint"] == "best.pt"
    exported(capsys, f"run={trained.directory}", "to=last.onnx")
    expected = retest(trained.directory, which="best")
    answers, last = (onnx_answers(name, expected.images).softmax(1) for name in ("mnist_net.onnx", "last.onnx"))
    torch.testing.assert_close(answers, expected.probabilities, rtol=1e-4, atol=1e-6)
    assert (last - answers).abs().max() > 0.01


def test_few_pictures_to_compare_are_spread_over_the_test_set(trained, capsys, monkeypatch):
    seen = []
    compare = module._compare
    monkeypatch.setattr(module, "_compare", lambda *given: seen.append(given[3]) or compare(*given))
    assert exported(capsys, f"run={trained.directory}", "format=pt2", "check=3")["pictures_compared"] == 3
    images = retest(trained.directory).images
    assert torch.equal(seen[0], images[[0, 179, 358]])


def test_without_the_data_random_pictures_are_compared(directory, capsys):
    path = directory / "provenance.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "data_fingerprint": "another"}))
    assert main([f"run={directory}", "format=pt2"]) == 0
    said = capsys.readouterr().out
    assert "checked  with 100 random pictures: logits up to" in said and "every class is the same" in said
    assert "as the test pictures are not here: the data that deepexp.data.digits.Digits finds here are not" in said


def test_what_export_prints(trained, resnet, capsys):
    assert main([f"run={trained.directory}", "format=pt2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:6] == [
        "mnist_net on digits",
        "last.pt: 6 updates, the last one in epoch 2, averaged weights",
        "",
        "takes    pictures (batch, 1, 28, 28) uint8, 0 to 255; they are normalised in the file",
        "         those of the data are 1×8×8, resized bilinearly with antialiasing",
        "gives    logits (batch, 10) float32, of 0, 1, 2, 3, 4, … (10)",
    ]
    assert lines[6] == "folded   3 of 3 batch normalisations"
    assert lines[7].startswith("checked  with 359 test pictures: logits up to ")
    assert lines[8].startswith("written  mnist_net.pt2, ") and len(lines) == 9
    assert main([f"run={resnet.directory}", "format=pt2"]) == 0
    assert "those of the data" not in capsys.readouterr().out


def test_a_file_with_other_logits_is_never_written(trained, capsys, monkeypatch):
    def fold_wrongly(graph_module):
        next(graph_module.parameters()).data.mul_(1.1)
        return Folded(3, 3)

    monkeypatch.setattr(module, "fold_batch_norm", fold_wrongly)
    with pytest.raises(RunFailed, match=r"in the file gives something else than in the run: logits differ by up to"):
        main([f"run={trained.directory}", "format=pt2"])
    assert os.listdir() == []


def test_names_may_be_of_any_bytes(directory, capsys):
    """Classes are names of picture folders, which like those of runs need not be UTF-8."""
    path = directory / "checkpoints" / "last.pt"
    content = checkpoint.load(path)
    content["pictures"]["classes"] = [*"012345678", "caf\udce9\n"]
    checkpoint.save(path, content)
    run = directory.rename(directory.parent / "run\udce9")
    assert main([f"run={run}", "check=1"]) == 0
    notes = {item.key: item.value for item in onnx.load("mnist_net.onnx").metadata_props}
    assert notes["run"] == "run?" and json.loads(notes["classes"])[9] == "caf\udce9\n"
    assert main([f"run={run}", "check=1", "format=pt2"]) == 0
    extra = {"deepexp.json": ""}
    torch.export.load("mnist_net.pt2", extra_files=extra)
    assert json.loads(extra["deepexp.json"])["classes"][9] == "caf\udce9\n"


def test_a_model_option_in_a_subfolder_names_the_file_without_it(directory, capsys):
    path = directory / ".hydra" / "hydra.yaml"
    path.write_text(path.read_text().replace("model: mnist_net", "model: small/mine"))
    assert exported(capsys, f"run={directory}", "format=pt2")["file"] == "mine.pt2"


def test_a_model_with_a_lock_is_built_anew_instead_of_copied(trained, monkeypatch, capsys):
    """A lock cannot be copied; the new model has the averaged weights too."""
    saved = module.load(trained.directory)
    saved.model.lock = threading.Lock()
    monkeypatch.setattr(module, "load", lambda *_: saved)
    assert exported(capsys, f"run={trained.directory}", "format=pt2")["largest_difference"] < 1e-5


def test_missing_packages_are_named(trained, monkeypatch):
    find = module.importlib.util.find_spec
    monkeypatch.setattr(
        module.importlib.util, "find_spec", lambda name: None if name.startswith("onnxr") else find(name)
    )
    with pytest.raises(InputError, match="onnx needs onnxruntime, which is not installed; pip install onnxruntime, or"):
        main([f"run={trained.directory}"])


def test_a_model_too_large_for_onnx_is_refused(trained, monkeypatch):
    monkeypatch.setattr(module, "_MOST_ONNX_BYTES", 1000)
    with pytest.raises(InputError, match=r"an ONNX file holds 2 GB, and the model has .* kB; format=pt2 does"):
        main([f"run={trained.directory}"])


def test_an_older_checkpoint_takes_the_normalisation_from_the_data(directory, capsys):
    path = directory / "checkpoints" / "last.pt"
    content = checkpoint.load(path)
    del content["pictures"]
    checkpoint.save(path, content)
    assert exported(capsys, f"run={directory}", "format=pt2")["largest_difference"] < 1e-5


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "run: of which run"),
        (["run=nothing"], "nothing"),
        (["run=RUN", "to=RUN/net.onnx"], "is not allowed; a file outside the run"),
        (["run=RUN", "to="], "to: nothing is not allowed"),
        (["run=RUN", "to=missing/net.onnx"], "there is no folder missing for net.onnx"),
        (["run=RUN", "to=taken"], "to: taken is there, and nothing is replaced"),
        (["run=RUN", "to=net.pt2"], "to: net.pt2 has the ending of format=pt2, and this is format=onnx"),
        (["run=RUN", f"to={'x' * 300}.onnx"], "x.onnx into .*: File name too long; give to=FILE"),
        (["run=RUN", f"to={'x' * 300}/net.onnx"], "there is no folder x"),
        (["run=RUN", "to=round/net.onnx"], "there is no folder round for net.onnx"),
        (["run=RUN", "format=tf"], "format: 'tf' is not allowed; 'onnx' or 'pt2'"),
        (["run=RUN", "check=0"], "check: 0 is not allowed"),
        (["run=RUN", "fold=true"], r"fold: there is no such key .*fold_bn"),
        (["RUN"], "run=.* exports the model of the run"),
    ],
)
def test_mistakes_are_refused_before_any_work(directory, words, told, monkeypatch):
    monkeypatch.setattr(module, "export", None)
    os.symlink("nowhere", "taken")
    os.symlink("round", "round")
    with pytest.raises(InputError, match=told):
        main([word.replace("RUN", str(directory)) for word in words])
    assert sorted(os.listdir()) == ["round", "taken"]


def test_export_changes_no_file_of_the_run(directory):
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    assert main([f"run={directory}", "format=pt2"]) == 0
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["model=monster", "model.pretrained=false", "model.nb_residual_blocks=2", "data.resize=20"],
        ["model=mnist_net", "dropout=0.5", "model.activation=tanh"],
        ["model=resnet", "model.depth=8", "model.shortcut=conv"],
        ["model=torchvision", "model.name=mobilenet_v3_small", "data.resize=32"],
        ["model=torchvision", "model.name=squeezenet1_1", "data.resize=32"],
    ],
)
def test_every_kind_of_model_is_exported(run, capsys, words):
    result = run([*WORDS, *words, "data.subset=100", "epochs=1", "batch_size=50"])
    for kind in ("onnx", "pt2"):
        found = exported(capsys, f"run={result.directory}", f"format={kind}")
        assert found["other_answers"] == 0 and found["batch_norms"] == found["batch_norms_folded"]


@pytest.mark.slow
def test_the_command_prints_nothing_but_its_lines(trained, capfd):
    """Its process has a stand-in for torch's compiler, which must not show."""
    line = [sys.executable, "-m", "deepexp", "export", f"run={trained.directory}"]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stderr == "" and done.stdout.count("\n") == 9
    assert cli.main(["export", f"run={trained.directory}"]) == 2
    assert capfd.readouterr().err.startswith("deepexp: to: mnist_net.onnx is there")


def test_a_full_disk_is_reported_and_leaves_no_file(trained, monkeypatch):
    def refuse(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("deepexp.commands.export.write_atomically", refuse)
    with pytest.raises(RunFailed, match=r"cannot write mnist_net\.pt2: No space left .* with to=FILE$"):
        main([f"run={trained.directory}", "format=pt2"])
    assert os.listdir() == []


def test_the_later_of_two_exports_to_one_file_replaces_nothing(trained, monkeypatch, capsys):
    def slow(path, content):
        path.write_bytes(content)
        Path("mnist_net.pt2").write_text("of the other")  # another export has ended meanwhile

    monkeypatch.setattr("deepexp.commands.export.write_atomically", slow)
    with pytest.raises(InputError, match="is there, and nothing is replaced"):
        main([f"run={trained.directory}", "format=pt2"])
    assert capsys.readouterr().out == ""
    assert os.listdir() == ["mnist_net.pt2"] and Path("mnist_net.pt2").read_text() == "of the other"


def test_the_file_is_compared_with_the_model_of_the_run(trained):
    """Not with the model made for the file: a wrong normalisation in both would not be noticed."""
    assert not hasattr(module.load(trained.directory).model, "pixel_mean")
    assert isinstance(module.load(trained.directory).model, nn.Module)
