import io
import math
import random
import subprocess
import sys
import textwrap

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import nn

from deepexp.run import event_format
from deepexp.run.events import EventFile, model_graph


@pytest.fixture
def events(tmp_path):
    file = EventFile(tmp_path)
    yield file
    file.close()


def read(directory):
    accumulator = EventAccumulator(str(directory), size_guidance={"scalars": 0, "images": 0})
    return accumulator.Reload()


def curve(directory, tag):
    return [(point.step, point.value) for point in read(directory).Scalars(tag)]


def test_a_curve_is_read_back_as_tensorboard_reads_it(events, tmp_path):
    losses = [random.Random(step).uniform(0, 3) for step in range(20_000)]
    events.scalars({"train/loss": 9.0}, step=0)
    for first in range(0, len(losses), 50):
        events.curve("train/loss", losses[first : first + 50], first_step=first + 1)
        events.scalars({"train/lr": 0.5, "train/loss": -1.0, "other/train/loss": 7.0}, step=first + 50)
        events.image("train/loss", Image.new("L", (9, 9)), step=first)
    events.curve("train/loss", [math.nan, math.inf, 2.0], first_step=20_001)
    events.flush()
    steps, values = event_format.curve(event_format.present(tmp_path), "train/loss")
    assert steps.tolist() == list(range(20_004))
    assert values[1:20_001].tolist() == torch.tensor(losses).tolist()
    assert (values[0], math.isnan(values[-3]), values[-2], values[-1]) == (9.0, True, math.inf, 2.0)


def test_the_last_of_several_points_at_a_step_counts_and_a_torn_one_does_not(events, tmp_path):
    events.curve("a", [1.0, 2.0, 3.0], first_step=1)
    events.curve("a", [4.0], first_step=2)
    events.flush()
    file = event_format.present(tmp_path)
    whole = file.read_bytes()
    assert [array.tolist() for array in event_format.curve(file, "a")] == [[1, 2, 3], [1.0, 4.0, 3.0]]
    for lost in (4, 5, 30):
        file.write_bytes(whole[:-lost])
        expected = [1.0, 4.0, 3.0] if lost == 4 else [1.0, 2.0, 3.0]
        assert event_format.curve(file, "a")[1].tolist() == expected, lost
    assert [array.shape for array in event_format.curve(file, "b")] == [(0,), (0,)]


def test_a_curve_has_every_step(events, tmp_path):
    losses = [1 / (1 + step) for step in range(1000)]
    events.curve("train/loss", losses[:300], first_step=1)
    events.curve("train/loss", losses[300:], first_step=301)
    events.scalars({"train/lr": 0.5, "train/grad_norm": math.inf}, step=1000)
    events.flush()
    steps, values = zip(*curve(tmp_path, "train/loss"), strict=True)
    assert steps == tuple(range(1, 1001))
    assert values == tuple(torch.tensor(losses).tolist())  # in float32, as TensorBoard has them
    assert curve(tmp_path, "train/lr") == [(1000, 0.5)]
    assert curve(tmp_path, "train/grad_norm") == [(1000, math.inf)]


@pytest.mark.parametrize("step", [0, 1, 127, 128, 300, 2**40])
@pytest.mark.parametrize("value", [0.0, -0.0, 0.1, -1e-45, math.pi * 1e30, 1e300, -math.inf, math.nan])
def test_scalars_are_encoded_as_by_protobuf(step, value):
    values = {"train/loss": value, "größe": 1.0, "t" * 200: 2.0}
    points = [Summary.Value(tag=tag, simple_value=number) for tag, number in values.items()]
    event = Event(wall_time=1.7e9, step=step, summary=Summary(value=points))
    assert event_format.scalars(values, step, 1.7e9) == event.SerializeToString()


@pytest.mark.parametrize("size", [0, 1, 32, 300, 70_000])
def test_records_are_encoded_as_by_tensorboard(size):
    content, expected = random.Random(size).randbytes(size), io.BytesIO()
    RecordWriter(expected).write(content)
    assert event_format.record(content) == expected.getvalue()


def test_nothing_is_written_before_flush(events, tmp_path):
    file = event_format.present(tmp_path)
    size = file.stat().st_size
    events.scalars({"a": 1.0}, 1)
    assert file.stat().st_size == size
    assert events.offset() > size
    assert file.stat().st_size == events.offset()


def test_curves_continue_in_the_same_file(events, tmp_path):
    events.curve("loss", [3.0, 2.0], first_step=1)
    offset = events.offset()
    events.curve("loss", [9.0, 9.0], first_step=3)
    events.flush()
    event_format.present(tmp_path).rename(tmp_path / "events.out.tfevents.1.another-host.2")
    again = EventFile(tmp_path)
    again.cut_back(offset)
    again.curve("loss", [1.0], first_step=3)
    again.close()
    assert len(list(tmp_path.iterdir())) == 1
    assert curve(tmp_path, "loss") == [(1, 3.0), (2, 2.0), (3, 1.0)]


def test_cutting_back_forgets_what_was_not_flushed(events, tmp_path):
    offset = events.offset()
    events.scalars({"loss": 9.0}, 1)
    events.cut_back(offset)
    events.scalars({"loss": 1.0}, 1)
    events.flush()
    assert curve(tmp_path, "loss") == [(1, 1.0)]


def test_a_file_cut_back_to_nothing_gets_a_header_again(events, tmp_path):
    events.scalars({"loss": 9.0}, 1)
    events.flush()
    events.cut_back(0)
    events.scalars({"loss": 1.0}, 1)
    events.flush()
    first, *rest = map(Event.FromString, RawEventFileLoader(str(event_format.present(tmp_path))).Load())
    assert first.file_version == "brain.Event:2"
    assert [event.step for event in rest] == [1]


def test_images_are_read_back_pixel_for_pixel(events, tmp_path):
    picture = Image.effect_mandelbrot((20, 10), (-2, -1, 1, 1), 100).convert("RGB")
    events.image("samples", picture, step=3)
    events.flush()
    (image,) = read(tmp_path).Images("samples")
    assert (image.step, image.width, image.height) == (3, 20, 10)
    back = Image.open(io.BytesIO(image.encoded_image_string))
    assert back.tobytes() == picture.tobytes()


def test_text_is_read_back(events, tmp_path):
    events.text("config", "```yaml\nname: ü\n```")
    events.flush()
    accumulator = read(tmp_path)
    (tensor,) = accumulator.Tensors("config/text_summary")
    assert tensor.tensor_proto.string_val[0].decode() == "```yaml\nname: ü\n```"
    assert accumulator.SummaryMetadata("config/text_summary").plugin_data.plugin_name == "text"


def test_hparams_are_in_the_same_file_with_their_types(events, tmp_path):
    events.hparams({"optim": "adam", "optim.lr": 0.1, "batch_size": 10, "batch_norm": True})
    events.hparams_end(success=False)
    events.flush()
    tags = read(tmp_path).PluginTagToContent(metadata.PLUGIN_NAME)
    start = metadata.parse_session_start_info_plugin_data(tags[metadata.SESSION_START_INFO_TAG])
    assert start.hparams["optim"].string_value == "adam"
    assert start.hparams["optim.lr"].number_value == 0.1
    assert start.hparams["batch_size"].number_value == 10
    assert start.hparams["batch_norm"].WhichOneof("kind") == "bool_value"
    end = metadata.parse_session_end_info_plugin_data(tags[metadata.SESSION_END_INFO_TAG])
    assert end.status == api_pb2.STATUS_FAILURE
    # An "experiment" tag would have TensorBoard show only the columns of this run.
    assert metadata.EXPERIMENT_TAG not in tags
    assert len(list(tmp_path.iterdir())) == 1


class Net(nn.Module):
    """A model with all that tracing could change: dropout, running statistics, a frozen part."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.norm, self.dropout = nn.BatchNorm1d(8), nn.Dropout()
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        assert x.shape[2] > 2  # a condition on a shape makes the tracer warn
        return self.head(self.dropout(self.norm(self.features(x).mean(dim=(2, 3)))))


@pytest.fixture
def net():
    net = Net().to(memory_format=torch.channels_last)
    net.train()
    net.features.eval()  # as a frozen part is
    return net


def test_graph_has_the_modules(events, tmp_path, net):
    events.graph(model_graph(net, torch.zeros(1, 3, 8, 8)))
    events.flush()
    nodes = {node.name: node for node in GraphDef.FromString(read(tmp_path).Graph().SerializeToString()).node}
    convolutions = [name for name, node in nodes.items() if "conv" in node.op]
    assert len(convolutions) == 1
    assert convolutions[0].startswith("Net/Sequential[features]/Conv2d[0]/")
    assert {name.partition("/")[0] for name in nodes} == {"input", "Net", "output"}


def test_tracing_the_graph_changes_and_prints_nothing(net, capfd, recwarn):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    state = torch.get_rng_state()
    model_graph(net, torch.randn(1, 3, 8, 8, generator=torch.Generator()))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.features[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert [module.training for module in net.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in net.parameters())
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_a_model_that_cannot_be_traced_is_not_changed(net):
    modes = [module.training for module in net.modules()]
    with pytest.raises(AssertionError):
        model_graph(net, torch.zeros(1, 3, 2, 2))
    assert [module.training for module in net.modules()] == modes


def test_tensorflow_is_not_imported_where_it_is_installed(tmp_path):
    """The import would take seconds, and nothing needs it."""
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('TensorFlow was imported')")
    code = f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from pathlib import Path
        import torch
        from deepexp.run.events import EventFile, model_graph
        events = EventFile(Path({str(tmp_path)!r}))
        events.hparams({{"lr": 0.1}})
        events.text("config", "lr: 0.1")
        events.graph(model_graph(torch.nn.Linear(2, 2), torch.zeros(1, 2)))
        events.close()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
