"""`deepexp export` of the user's own models: those that can be exported are; for others the message says why not."""

import copy
import json
import os

import onnx
import pytest
import torch
from PIL import Image

from deepexp import checkpoint, cli
from deepexp.commands.export import main
from deepexp.errors import RunFailed
from deepexp.inference import export as module
from deepexp.inference.retest import retest

from .test_export import WORDS, exported, onnx_answers

OWN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.linear = nn.Linear(shape[0] * shape[1] * shape[2], classes)
        self.more = {more}

    def forward(self, x):
        {line}
        return self.linear(x.flatten(1))
"""


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def own(tmp_path, run):
    """Trains a user's model with this line in its forward, and perhaps another layer `more`."""

    def train(line, more="None"):
        conf = tmp_path / "here" / "conf" / "model"
        conf.mkdir(parents=True)
        (conf / "mine.yaml").write_text("_target_: mine.Net\ninput: {channels: null, height: null, width: null}\n")
        (tmp_path / "here" / "mine.py").write_text(OWN.format(line=line, more=more))
        return run([*WORDS, "model=mine", "epochs=1"])

    return train


def test_a_users_model_is_exported(own, capsys):
    result = own("x = x * torch.sigmoid(x)")
    assert exported(capsys, f"run={result.directory}")["file"] == "mine.onnx"
    expected = retest(result.directory)
    answers = onnx_answers("mine.onnx", expected.images).softmax(1)
    torch.testing.assert_close(answers, expected.probabilities, rtol=1e-4, atol=1e-6)


def test_batch_norms_that_onnx_folds_itself_are_counted(own, capsys):
    """deepexp leaves one behind a transposed convolution to it."""
    result = own("x = self.more(x)", "nn.Sequential(nn.ConvTranspose2d(1, 1, 3, padding=1), nn.BatchNorm2d(1))")
    found = exported(capsys, f"run={result.directory}")
    made = onnx.load("mine.onnx")
    assert "BatchNormalization" not in [node.op_type for node in made.graph.node]
    assert (found["batch_norms_folded"], found["batch_norms"]) == (1, 1)
    assert {item.key: item.value for item in made.metadata_props}["batch_norm"] == "1 of 1 folded"


@pytest.mark.parametrize(("command", "words"), [("eval", []), ("export", ["format=pt2"]), ("predict", ["picture.png"])])
def test_output_printed_by_a_model_is_kept_out_of_the_json(own, capsys, command, words):
    result = own("print('hello'); x = x * 2")
    Image.new("L", (8, 8)).save("picture.png")
    capsys.readouterr()
    assert cli.main([command, f"run={result.directory}", "json=true", *words]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) and "hello\n" in err


def test_a_file_gives_float32_also_for_a_float64_model(own, capsys):
    result = own("return self.linear(x.flatten(1)).double()")
    exported(capsys, f"run={result.directory}")
    assert onnx_answers("mine.onnx", torch.zeros(2, 1, 8, 8, dtype=torch.uint8)).dtype == torch.float32


@pytest.mark.parametrize(
    "line", ["x = x if x.sum() > 1e9 else 2 * x", "x = x.view(2 if len(x) == 2 else len(x), 1, 8, 8)"]
)
def test_a_model_with_control_flow_on_values_is_refused(own, line):
    result = own(line)
    with pytest.raises(
        RunFailed,
        match=r"^mine\.Net cannot be exported: .*must not depend on the values or the number .* x\.shape\[0\] where",
    ):
        main([f"run={result.directory}"])
    assert sorted(set(os.listdir()) - {"__pycache__"}) == ["conf", "mine.py"]


def test_a_model_with_random_outputs_is_not_exported(own):
    result = own("x = nn.functional.dropout(x, 0.5)")
    with pytest.raises(RunFailed, match="gives something else"):
        main([f"run={result.directory}", "format=pt2"])


def test_a_file_with_another_shape_for_one_picture_is_never_written(own):
    """The graph is made for several pictures, where `squeeze` leaves the batch dimension alone."""
    result = own("x = self.linear(x.flatten(1)).squeeze(); return x.unsqueeze(0) if x.dim() == 1 else x")
    with pytest.raises(RunFailed, match=r"gives \(10,\) in the file and \(1, 10\) in the run for 1 picture"):
        main([f"run={result.directory}", "format=pt2"])


def test_a_model_that_fails_for_one_picture_is_refused(own):
    result = own("x = nn.functional.batch_norm(x.flatten(1), None, None, training=True)")
    with pytest.raises(RunFailed, match=r"^mine\.Net fails for 1 picture: mine\.py:.* more than 1 value per channel"):
        main([f"run={result.directory}", "format=pt2"])


def test_a_model_with_logits_that_are_not_finite_is_refused(own):
    result = own("x = x / (x.amax((1, 2, 3), keepdim=True) - x.amin((1, 2, 3), keepdim=True))")
    path = result.directory / "checkpoints" / "last.pt"
    content = checkpoint.load(path)
    content["model"]["linear.weight"].fill_(3e38)
    checkpoint.save(path, content)
    with pytest.raises(RunFailed, match=r"logits that are NaN or infinite for some of 359 test pictures"):
        main([f"run={result.directory}", "format=pt2"])


def test_a_model_that_cannot_be_copied_is_built_anew(own, tmp_path, capsys):
    """For example with torch's old weight normalisation, whose computed weight `deepcopy` refuses."""
    result = own("x = self.more(x)", "nn.utils.weight_norm(nn.Linear(8, 8))")
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(module.load(result.directory).model)
    found = exported(capsys, f"run={result.directory}", "format=pt2")
    assert found["other_answers"] == 0 and found["largest_difference"] < 1e-5


def test_a_model_with_a_part_in_torchscript_is_refused(own):
    result = own("x = self.more(x)", "torch.jit.script(nn.Linear(8, 8))")
    with pytest.raises(RunFailed, match=r"^mine\.Net cannot be exported: .*torch\.jit\.script .*, as more is; leave"):
        main([f"run={result.directory}", "format=pt2"])


def test_an_operation_that_onnx_lacks_is_named(own):
    result = own("x = torch.special.i1e(x)")
    with pytest.raises(RunFailed, match=r"cannot be written as ONNX: DispatchError: .*i1e.*; format=pt2 may do"):
        main([f"run={result.directory}"])
    assert main([f"run={result.directory}", "format=pt2"]) == 0
