"""The plots of benchmarks show the figures of their reports."""

import errno
import statistics
import xml.etree.ElementTree as ElementTree

import pytest

from deepexp.bench import plot, step, sweep
from deepexp.bench.compare import Ratio
from deepexp.bench.plot import Bar, Chart, Stack
from deepexp.cli import main
from deepexp.errors import InputError, RunFailed
from deepexp.pages import plotting

from . import test_report, test_start, test_sweep

OURS = Bar("deepexp", [2.0, 4.0, 3.0])
OTHER = Bar("plain loop", [10.0, 8.0, 12.0], Ratio(0.25, 0.2, 0.5))


def widths(panel):
    return [patch.get_width() for patch in panel.patches]


def texts(panel):
    return [text.get_text() for text in panel.texts]


def points(panel):
    return [list(line.get_xdata()) for line in panel.lines if line.get_marker() == "o"]


def test_bars_are_medians_and_points_are_rounds():
    (panel,) = plot.draw([Chart("step", [OURS, OTHER], limit=1.5)]).axes
    assert widths(panel) == [3.0, 10.0]
    assert points(panel) == [[2.0, 4.0, 3.0], [10.0, 8.0, 12.0]]
    assert [line.get_xdata()[0] for line in panel.lines if line.get_linestyle() == "--"] == [1.5]
    assert texts(panel) == ["3.00 s", "10.0 s, deepexp / this 0.25 (0.20–0.50)", "limit of this machine 1.50 s"]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["deepexp", "plain loop"]
    assert panel.get_xlim()[0] == 0 and panel.get_ylim()[0] > panel.get_ylim()[1], "from zero, the first at the top"
    assert panel.get_xlabel() == "time in seconds"


def test_short_times_are_in_milliseconds():
    (panel,) = plot.draw([Chart("step", [Bar("deepexp", [0.002])], limit=0.001)]).axes
    assert widths(panel) == [pytest.approx(2.0)] and points(panel) == [[pytest.approx(2.0)]]
    assert panel.get_xlabel() == "time in milliseconds"
    assert texts(panel) == ["2 ms", "limit of this machine 1 ms"]


def test_parts_follow_each_other_and_are_numbered():
    (panel,) = plot.draw([Stack("parts", {"python": 0.5, "torch": 3.0, "data": 0.01, "step": 0.49})]).axes
    assert widths(panel) == pytest.approx([0.5, 3.0, 0.01, 0.49])
    assert [patch.get_x() for patch in panel.patches] == pytest.approx([0, 0.5, 3.5, 3.51])
    assert texts(panel) == ["1", "2", "4"], "the third is too narrow"
    key = [text.get_text() for text in panel.get_legend().get_texts()]
    assert key == ["1  python, 500 ms", "2  torch, 3.00 s", "3  data, 10 ms", "4  step, 490 ms"]


def test_the_chart_of_steps_has_the_limit():
    figures = {"step": {"deepexp": [0.004, 0.005], "plain": [0.01, 0.02]}, "epoch": {"deepexp": [2.0], "plain": [4.0]}}
    step, epoch = test_report.report(figures=figures).charts()
    assert step.limit == 0.003 and epoch.limit == 1.5
    assert [bar.label for bar in step.bars] == ["deepexp", "plain loop"]
    assert step.bars[0].ratio is None and step.bars[1].ratio.median == pytest.approx(0.325)
    assert "mnist_net on digits" in step.title and "epoch" in epoch.title


def test_the_chart_of_a_sweep_has_all_ways():
    figures = {way: [float(seconds)] for seconds, way in enumerate(test_sweep.WAYS, start=1)}
    (chart,) = sweep.Report(["seed=0,1"], 2, 2, figures).charts()
    assert [(bar.label, *bar.seconds) for bar in chart.bars] == [(way, *figures[way]) for way in test_sweep.WAYS]
    assert chart.limit is None and [bar.ratio and bar.ratio.median for bar in chart.bars] == [None, 0.5, 1 / 3, 0.25]


def test_the_charts_of_starts_have_the_parts():
    starts, parts = test_start.report().charts()
    assert [statistics.median(bar.seconds) for bar in starts.bars] == [2.0, 4.0]
    assert parts.parts == test_start.report().parts()


@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_only_the_file_of_the_plot_is_written(tmp_path, ending):
    path = plot.check_path(str(tmp_path / f"start.of.mine{ending}"))
    charts = [Chart("step", [OURS, OTHER], limit=1.5), Stack("parts", {"python": 1.0, "torch": 2.0})]
    plot.write(charts, path)
    first = path.read_bytes()
    plot.write(charts, path)
    assert path.read_bytes() == first, "the same figures give the same file"
    assert list(tmp_path.iterdir()) == [path]
    assert first.startswith(b"\x89PNG") if ending == ".png" else ElementTree.fromstring(first).tag.endswith("svg")


@pytest.mark.parametrize(
    "name, expected",
    [
        ("step.pdf", "step.pdf is not allowed; a file that ends in .png or .svg"),
        ("step", "a file that ends in .png or .svg"),
        ("step.pmg", "(did you mean '.png'?)"),
        ("step.PNG", "a file that ends in .png or .svg"),
        ("nowhere/step.png", "there is no folder nowhere for step.png"),
    ],
)
def test_a_wrong_plot_file_is_refused_before_measuring(name, expected, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for benchmark in ("step", "epoch", "sweep", "start"):
        assert main(["bench", benchmark, f"plot={name}"]) == 2
        out, err = capfd.readouterr()
        assert out == "" and err.startswith("deepexp: plot: ") and len(err.splitlines()) == 1
        assert expected in err
    assert not list(tmp_path.iterdir())


def test_a_folder_in_place_of_the_plot_file_is_refused(tmp_path):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        plot.check_path(str(tmp_path / "folder.png"))


def test_a_read_only_folder_is_refused_before_measuring(tmp_path, monkeypatch):
    monkeypatch.setattr(plot.os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match=r"plot: the folder .* cannot be written to; choose another place for x\.png"):
        plot.check_path(str(tmp_path / "x.png"))


def test_the_message_of_a_full_disk_names_the_plot_option(tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(plotting, "write_atomically", full)
    with pytest.raises(RunFailed, match=r"cannot write .*step\.png: No space left .* with plot=FILE$"):
        plot.write([Chart("step", [OURS])], tmp_path / "step.png")


def test_plot_is_an_option_of_the_command(capsys, tmp_path, monkeypatch):
    class Report:
        def lines(self):
            return ["the table"]

        def charts(self):
            return [Chart("step", [Bar("deepexp", [0.1, 0.2])])]

    monkeypatch.setattr(step, "run", lambda options, overrides: Report())
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "step", "plot=step.svg"]) == 0
    assert capsys.readouterr().out == "the table\n"
    assert [path.name for path in tmp_path.iterdir()] == ["step.svg"]
