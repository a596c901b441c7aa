import numpy as np
import pytest

from deepexp import cli, schema
from deepexp.config.compose import compose
from deepexp.data.synthetic import Synthetic
from deepexp.training.memory import is_out_of_memory, out_of_memory


@pytest.mark.parametrize(
    "message",
    [
        "MPS backend out of memory (MPS allocated: 5.5 GiB, other allocations: 14.7 GiB, max allowed: 20.4 GiB).",
        "[enforce fail at alloc_cpu.cpp:116] data. DefaultCPUAllocator: not enough memory: you tried to allocate 9 B.",
    ],
)
def test_words_of_other_systems_for_too_little_memory_are_known(message):
    assert is_out_of_memory(RuntimeError(message))


def test_onednns_word_for_too_little_memory_is_known():
    assert is_out_of_memory(RuntimeError("could not create a primitive"))
    assert not is_out_of_memory(RuntimeError("could not create a primitive descriptor for the convolution"))


@pytest.mark.parametrize(
    ("chosen", "advice"),
    [
        ([], "lower batch_size, or try precision=bf16, on_oom=halve, data.mode=streamed"),
        (["on_oom=halve"], "lower batch_size, or try precision=bf16, data.mode=streamed"),
        (["precision=fp16", "data.mode=streamed"], "lower batch_size, or try on_oom=halve"),
        (["precision=bf16", "on_oom=halve", "data.mode=streamed"], "lower batch_size"),
    ],
)
def test_only_settings_that_are_not_chosen_are_advised(chosen, advice):
    composed = compose(["data=synthetic", *chosen])
    problems = schema.Problems()
    config = schema.typed(composed.resolved(), problems)
    assert not problems.lines
    assert out_of_memory(config) == f"out of memory: {advice}"


def test_pictures_that_do_not_fit_into_memory_are_told_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Synthetic, "load", lambda self: np.empty((2**50, 2**10), np.uint8))
    assert cli.main(["train", "data=synthetic", f"output_dir={tmp_path}"]) == 1
    assert capsys.readouterr().err.startswith(
        "deepexp: data: out of memory; fewer or smaller pictures need less (MemoryError: Unable to allocate "
    )
    assert not any(tmp_path.iterdir())
