"""The house style, and figures as files and as parts of a page."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.layout_engine import ConstrainedLayoutEngine

from deepexp.pages import plotting


@pytest.fixture
def drawn():
    figure, axes = plotting.figure()
    for index in range(3):
        axes[0, 0].plot([0, 1, 2], [index, 1, 4], **plotting.series_style(index), label=f"a < b & {index}")
    axes[0, 0].bar([0], [1], hatch="//")
    axes[0, 0].legend()
    return figure


def channel(value):
    return value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4


def luminance(colour):
    """Relative luminance of WCAG 2."""
    red, green, blue = (channel(int(colour[start : start + 2], 16) / 255) for start in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_axes_are_an_array_of_rows_and_columns():
    assert plotting.figure()[1].shape == (1, 1)
    assert plotting.figure(rows=2, columns=3)[1].shape == (2, 3)


def test_a_figure_leaves_matplotlib_as_it_was():
    import matplotlib

    before = dict(matplotlib.rcParams)
    figure, _ = plotting.figure()
    plotting.as_svg(figure)
    assert dict(matplotlib.rcParams) == before


def test_importing_loads_no_matplotlib_and_drawing_no_pyplot():
    program = (
        "import sys; from deepexp.pages import plotting; assert 'matplotlib' not in sys.modules; "
        "plotting.as_png(plotting.figure()[0]); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_every_colour_has_contrast_on_white():
    assert len(set(plotting.COLOURS)) == len(plotting.COLOURS)
    assert plotting.COLOURS[-1] == "#000000"
    assert min(1.05 / (luminance(colour) + 0.05) for colour in plotting.COLOURS) > 2


def test_series_differ_without_colour():
    styles = [plotting.series_style(index) for index in range(35)]
    assert len({(str(style["linestyle"]), style["marker"]) for style in styles}) == 35
    assert len({(str(style["linestyle"]), style["color"]) for style in styles}) == 35


def test_saved_files_are_reproducible_and_have_no_date(drawn, tmp_path):
    paths = plotting.save(drawn, tmp_path / "optim.lr=0.1")
    assert [path.name for path in paths] == ["optim.lr=0.1.png", "optim.lr=0.1.svg"]
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in plotting.save(drawn, tmp_path / "optim.lr=0.1")] == first
    assert first[0].startswith(b"\x89PNG")
    assert b"<dc:date>" not in first[1]
    assert re.search(rb"20\d\d-\d\d-\d\dT", first[1]) is None


@pytest.mark.parametrize("setting", ["figure.autolayout", "figure.constrained_layout.use"])
def test_a_figure_is_laid_out_once_under_any_matplotlib_setting(setting, tmp_path, monkeypatch):
    laid_out = []
    execute = ConstrainedLayoutEngine.execute
    monkeypatch.setattr(
        ConstrainedLayoutEngine, "execute", lambda engine, figure: laid_out.append(1) or execute(engine, figure)
    )
    figure, axes = plotting.figure()
    figure.colorbar(axes[0, 0].pcolormesh([[1.0, 2.0], [3.0, 4.0]]), ax=axes[0, 0])
    with matplotlib.rc_context({setting: True}):
        plotting.save(figure, tmp_path / "plot")
        plotting.as_svg(figure)
        assert figure.get_layout_engine() is None and len(laid_out) == 1


def test_an_embedded_svg_is_complete_and_keeps_its_text(drawn):
    svg = plotting.as_svg(drawn)
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert svg.startswith("<svg")
    assert "a < b & 1" in [text.strip() for text in root.itertext()]


def identifiers(svg):
    return {element.get("id") for element in ElementTree.fromstring(svg).iter() if element.get("id")}


def referred_to(svg):
    return set(re.findall(r'(?:href="#|url\(#)([\w.-]+)', svg))


def test_identifiers_of_embedded_svgs_are_unique(drawn):
    other, axes = plotting.figure()
    axes[0, 0].plot([0, 1], [5, 6], **plotting.series_style(0))
    one, two = plotting.as_svg(drawn), plotting.as_svg(other)
    assert referred_to(one) == identifiers(one)
    assert referred_to(two) == identifiers(two)
    assert referred_to(one)
    assert not identifiers(one) & identifiers(two)


def test_making_identifiers_unique_leaves_colours_alone(drawn):
    svg = plotting.as_svg(drawn).lower()
    assert all(plotting.COLOURS[index].lower() in svg for index in range(3))


def test_an_embedded_svg_has_no_style_element(drawn):
    assert "<style" not in plotting.as_svg(drawn)


def test_a_png_has_its_resolution(drawn):
    from io import BytesIO

    from PIL import Image

    with Image.open(BytesIO(plotting.as_png(drawn))) as image:
        assert np.allclose(image.info["dpi"], 192, atol=1)
        assert image.size == (int(6.4 * 192), int(4.0 * 192))


def test_a_pdf_holds_fonts_that_can_be_embedded_and_no_date(drawn, tmp_path):
    (first,) = plotting.save(drawn, tmp_path / "a.b", ["pdf"])
    (second,) = plotting.save(drawn, tmp_path / "c", ["pdf"])
    content = first.read_bytes()
    assert first.name == "a.b.pdf" and content.startswith(b"%PDF-") and content == second.read_bytes()
    assert b"/Subtype /Type3" not in content and b"/FontFile2" in content
    assert b"CreationDate" not in content and b"Producer" not in content
