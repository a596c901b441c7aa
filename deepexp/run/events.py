"""TensorBoard's event file: one for each run, appended to, and cut back to a checkpoint on resume.

`torch.utils.tensorboard.SummaryWriter` cannot do that: it starts a new file each time, writes from
a thread of its own, and makes an extra run for each set of hyper-parameters. What is worth writing
is decided in `runlog.py`; the pictures are drawn in `pictures.py`.
"""

import io
import os
import socket
import sys
import time
import types
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from deepexp.disk.storage import AppendFile
from deepexp.models.modes import in_test_mode
from deepexp.run import event_format

if TYPE_CHECKING:  # TensorBoard's modules are imported where they are used: they take a while
    from PIL.Image import Image
    from tensorboard.compat.proto.summary_pb2 import Summary

HParam = bool | int | float | str


class EventFile:
    """Writes TensorBoard's event file in `directory`; appends to the one that is there, if any.

    Events wait in memory until `flush`. The methods that write to the disk raise `RunFailed`.
    """

    def __init__(self, directory: Path) -> None:
        _leave_tensorflow_out()
        new = directory / f"{event_format.NAME}{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._file = AppendFile(event_format.present(directory) or new)
        self._waiting = io.BytesIO()
        try:
            self._begin_if_empty()
        except BaseException:
            self._file.close()
            raise

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """One point at `step` in the curve of each tag."""
        self._write(event_format.scalars(values, step, time.time()))

    def curve(self, tag: str, values: Sequence[float], first_step: int) -> None:
        """Consecutive points of one tag, the first of them at `first_step`."""
        now = time.time()
        for step, value in enumerate(values, start=first_step):
            self._write(event_format.scalars({tag: value}, step, now))

    def image(self, tag: str, picture: "Image", step: int) -> None:
        """A picture; those of one tag become a slider over the steps."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        encoded = io.BytesIO()
        picture.save(encoded, format="PNG", compress_level=1)  # half the time of the default, for a tenth more bytes
        image = Summary.Image(
            height=picture.height,
            width=picture.width,
            colorspace=len(picture.getbands()),
            encoded_image_string=encoded.getvalue(),
        )
        self._add(Summary(value=[Summary.Value(tag=tag, image=image)]), step)

    def text(self, tag: str, markdown: str, step: int = 0) -> None:
        """A text, shown as Markdown."""
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
        from tensorboard.plugins.text.plugin_data_pb2 import TextPluginData

        content = TextPluginData(version=0).SerializeToString()
        metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text", content=content))
        tensor = TensorProto(
            dtype="DT_STRING",
            string_val=[markdown.encode(errors="replace")],
            tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
        )
        value = Summary.Value(tag=f"{tag}/text_summary", metadata=metadata, tensor=tensor)
        self._add(Summary(value=[value]), step)

    def graph(self, graph: bytes) -> None:
        """The model's graph, as `model_graph` returns it."""
        from tensorboard.compat.proto.event_pb2 import Event

        event = Event(wall_time=time.time(), graph_def=graph)
        self._write(event.SerializeToString())

    def hparams(self, values: Mapping[str, HParam]) -> None:
        """Put the run on the HParams page; its metrics there are the last points of the scalars.

        No list of columns is written (the plugin's "experiment"): TensorBoard would show that of an
        arbitrary run for all of them. Without one it gathers the columns over all runs.
        """
        from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

        info = SessionStartInfo(start_time_secs=time.time())
        for name, value in values.items():
            if isinstance(value, bool):  # before the numbers, since it is an int as well
                info.hparams[name].bool_value = value
            elif isinstance(value, (int, float)):
                info.hparams[name].number_value = value
            else:
                info.hparams[name].string_value = value
        self._add_hparams_data(SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=info))

    def hparams_end(self, *, success: bool) -> None:
        """Say on the HParams page that the run has ended, and how."""
        from tensorboard.plugins.hparams import api_pb2
        from tensorboard.plugins.hparams.metadata import SESSION_END_INFO_TAG
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo

        status = api_pb2.STATUS_SUCCESS if success else api_pb2.STATUS_FAILURE
        info = SessionEndInfo(status=status, end_time_secs=time.time())
        self._add_hparams_data(SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=info))

    def flush(self, *, sync: bool = False) -> None:
        """Hand all events to the system, for TensorBoard to see; with `sync`, to the disk."""
        waiting = self._waiting.getvalue()
        self._clear_waiting()  # before the write: what a full disk refused is not tried again
        if waiting:
            self._file.write(waiting)
        if sync:
            self._file.sync()

    def offset(self) -> int:
        """Length of the file in bytes, with all events so far in it."""
        self.flush()
        return self._file.offset()

    def cut_back(self, offset: int) -> None:
        """Forget all events after `offset`, as `offset()` gave it."""
        self._clear_waiting()
        self._file.cut_back(offset)
        self._begin_if_empty()

    def close(self) -> None:
        """Flush, and close the file."""
        try:
            self.flush()
        finally:
            self._file.close()

    def _begin_if_empty(self) -> None:
        """Write the event that every file must begin with."""
        from tensorboard.compat.proto.event_pb2 import Event

        if self._file.offset() == 0:
            event = Event(wall_time=time.time(), file_version="brain.Event:2")
            self._write(event.SerializeToString())
            self.flush()

    def _write(self, event: bytes) -> None:
        self._waiting.write(event_format.record(event))

    def _clear_waiting(self) -> None:
        self._waiting.seek(0)
        self._waiting.truncate()

    def _add(self, summary: "Summary", step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        event = Event(wall_time=time.time(), step=step, summary=summary)
        self._write(event.SerializeToString())

    def _add_hparams_data(self, tag: str, data: object) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams.metadata import create_summary_metadata

        metadata = create_summary_metadata(data)
        self._add(Summary(value=[Summary.Value(tag=tag, metadata=metadata)]), 0)


def model_graph(model: nn.Module, example: Tensor) -> bytes:
    """The graph of `model` on a batch (batch, channels, height, width), for `EventFile.graph`.

    It is traced in test mode and without gradients; the model's modes, buffers and the generators
    are left as they were. Raises whatever the model raises when it cannot be traced.
    """
    from tensorboard.compat.proto.graph_pb2 import GraphDef
    from tensorboard.compat.proto.versions_pb2 import VersionDef
    from torch.utils.tensorboard import _pytorch_graph

    devices = [example.device] if example.is_cuda else []
    with in_test_mode(model), warnings.catch_warnings(), torch.random.fork_rng(devices), torch.no_grad():
        warnings.simplefilter("ignore")  # what tracing cannot generalise does not matter here
        trace = torch.jit.trace(model, (example,), strict=False, check_trace=False)
        graph = trace.graph
        torch._C._jit_pass_inline(graph)
        nodes = _pytorch_graph.parse(graph, trace)
    return GraphDef(node=nodes, versions=VersionDef(producer=22)).SerializeToString()


def _leave_tensorflow_out() -> None:
    """Let TensorBoard use its stand-in for TensorFlow, whose import takes seconds.

    TensorBoard does so if it finds the module `notf`, which its builds without TensorFlow contain. If TensorFlow is not
    installed, nothing changes.
    """
    name = "tensorboard.compat.notf"
    sys.modules.setdefault(name, types.ModuleType(name))
