"""The page of the course: its parts in order, parts that fail, and presets that are trained once."""

import re

import pytest

from deepexp.commands import COMMANDS
from deepexp.config import catalogue
from deepexp.errors import InputError
from deepexp.lecture import chapters, course, curvature
from deepexp.lecture.chapters import Chapter, Demo, Preset
from deepexp.lecture.course import Choices
from deepexp.lecture.training import Training

PRESET = """# @package _global_
# Two batch sizes on digits
defaults:
  - override /data: digits
name: tiny
data: {subset: 100}
epochs: 1
threads: 1
device: cpu
hydra: {sweeper: {params: {batch_size: "20,50"}}}
"""


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A user's preset in ./conf, and a course that has only this preset."""
    folder = tmp_path / "conf" / "experiment"
    (folder / "tiny").mkdir(parents=True)
    (folder / "tiny.yaml").write_text(PRESET, encoding="utf-8")
    quick = "# @package _global_\n# Quick\ndefaults:\n  - /experiment/tiny\n"
    (folder / "tiny" / "quick.yaml").write_text(quick, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    parts = (Demo("curvature", ""), Preset("tiny", "What to see"))
    monkeypatch.setattr(chapters, "CHAPTERS", (Chapter("A chapter", parts),))
    return folder / "tiny.yaml"


def test_the_course_has_every_demonstration_and_preset():
    from deepexp.lecture.options import parse

    for demo in chapters.demos():
        demonstrate = __import__(f"deepexp.lecture.{demo.name}", fromlist=["demonstrate"]).demonstrate
        assert parse([], demonstrate) == {}
    assert [preset.name for preset in chapters.presets() if preset.name not in catalogue.names("experiment")] == []
    assert set(COMMANDS["lecture"].words) == {"all", *(demo.name for demo in chapters.demos())}


@pytest.mark.slow
def test_a_preset_is_trained_once_and_shown(tiny, tmp_path, capsys):
    assert course.make(tmp_path / "page", Choices()) == 0
    html = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    out = capsys.readouterr().out
    assert "[2/2]" in out
    assert "deepexp train -m experiment=tiny scale=quick" in html
    assert "Two batch sizes on digits" in html
    assert html.index("deepexp lecture curvature") < html.index("What to see") < html.index("batch_size")
    assert re.findall(r"(?:src|href)=\"(?!data:|#)", html) == []
    assert (tmp_path / "page" / "curvature" / "curvature.png").is_file()
    assert course.make(tmp_path / "page", Choices()) == 0
    assert "tiny: kept from before" in capsys.readouterr().out
    before = Training.below(tmp_path / "page", "tiny", "quick")
    tiny.write_text(PRESET.replace("20,50", "20,60"), encoding="utf-8")
    assert before.is_finished()
    assert not Training.below(tmp_path / "page", "tiny", "quick").is_finished()


@pytest.mark.slow
def test_a_training_that_fails_is_shown_as_failed(tiny, tmp_path, capsys):
    tiny.write_text(PRESET.replace("20,50", "20,5000"), encoding="utf-8")
    assert course.make(tmp_path / "page", Choices()) == 1
    html = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert "Failed:" in html
    assert "5000" in html
    assert "failed: tiny" in capsys.readouterr().out


def test_a_demonstration_that_fails_does_not_end_the_page(tmp_path, monkeypatch, capsys):
    def broken(*, lr: float = 1.0):
        raise InputError("this is broken")

    first = Chapter("First", (Demo("curvature", ""), Demo("strided_identity", "")))
    monkeypatch.setattr(chapters, "CHAPTERS", (first, Chapter("Second", (Preset("nothing", ""),))))
    monkeypatch.setattr(curvature, "demonstrate", broken)
    assert course.make(tmp_path, Choices(training=False)) == 1
    html = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "Failed: this is broken" in html
    assert "x[:, :, ::2, ::2]" in html
    assert "experiment=nothing" not in html
    assert "failed: curvature" in capsys.readouterr().out
