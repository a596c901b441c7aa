"""A page is one complete, escaped file that loads nothing from elsewhere."""

import re
from html.parser import HTMLParser

import pytest

from deepexp.pages import page, plotting
from deepexp.pages.page import Cell, Page

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Elements(HTMLParser):
    """Every element with its attributes and text; raises when one is not closed in order."""

    def __init__(self, html):
        super().__init__()
        self.found, self.open = [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.found.append([tag, dict(attributes), ""])
        if tag not in VOID:
            self.open.append(self.found[-1])

    def handle_startendtag(self, tag, attributes):
        self.found.append([tag, dict(attributes), ""])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for element in self.open:
            element[2] += data

    def all(self, *tags):
        return [(attributes, text) for tag, attributes, text in self.found if tag in tags]


@pytest.fixture
def drawn():
    figure, axes = plotting.figure(3, 2)
    axes[0, 0].plot([0, 1], [0, 1])
    return figure


def test_all_text_is_escaped(drawn):
    evil = "<script>alert('1')</script> & \"quoted\""
    whole = (
        Page(evil, evil).heading(evil).paragraph(evil).bullets([evil]).note(evil).code(evil)
        .table([evil], [[evil], [Cell(evil, key=evil)]], caption=evil).figure(plotting.as_png(drawn), evil, evil)
    )  # fmt: skip
    elements = Elements(whole.html())
    assert not elements.all("script")
    for tag in ("title", "h1", "h2", "p", "li", "code", "caption", "th", "td", "figcaption"):
        assert any(evil in text for _, text in elements.all(tag)), tag
    assert elements.all("img")[0][0]["alt"] == evil


def test_a_page_loads_nothing_from_elsewhere(drawn):
    html = Page("t").figure(drawn, "c", "a").figure(plotting.as_png(drawn), "c", "a").table(["x"], [["1"]]).html()
    elements = Elements(html)
    for _, attributes, _ in elements.found:
        for key in ("src", "href", "xlink:href"):
            assert attributes.get(key, "#").startswith(("#", "data:"))
    assert "url(h" not in html
    assert "@import" not in html


def test_a_page_of_four_headings_has_a_table_of_contents():
    whole = Page("t")
    for text in ("One", "Two", "Two"):
        whole.heading(text)
    assert not Elements(whole.html()).all("nav")
    whole.heading("Three & four", level=3, anchor="mine")
    elements = Elements(whole.html())
    targets = [attributes["id"] for attributes, _ in elements.all("h2", "h3")]
    assert targets == ["one", "two", "two-2", "mine"]
    links = elements.all("a")
    assert [attributes["href"] for attributes, _ in links] == [f"#{target}" for target in targets]
    assert [text for _, text in links] == ["One", "Two", "Two", "Three & four"]


def test_a_table_has_header_cells_classes_and_sort_keys():
    html = (
        Page("t")
        .table(["model", "error"], [["a", "1 %"], [Cell("b", mark="muted"), Cell("–", key=9)]], numeric=[1])
        .html()
    )
    elements = Elements(html)
    assert [text for _, text in elements.all("th")] == ["model", "error"]
    cells = elements.all("td")
    assert [text for _, text in cells] == ["a", "1 %", "b", "–"]
    assert [attributes.get("class") for attributes, _ in cells] == [None, "numeric", "muted", "numeric"]
    assert cells[3][0]["data-key"] == "9"
    assert not elements.all("script")


def test_sortable_tables_add_buttons_and_one_script():
    html = Page("t").table(["a"], [["1"]], sortable=True).table(["a"], [["1"]], sortable=True).html()
    elements = Elements(html)
    assert len(elements.all("button")) == 2
    assert len(elements.all("script")) == 1


def test_a_figure_is_embedded_as_svg_with_its_description(drawn):
    elements = Elements(Page("t").figure(drawn, "the caption", "a line").html())
    assert len(elements.all("svg")) == 1
    assert (
        next(attributes["aria-label"] for attributes, _ in elements.all("div") if attributes.get("role") == "img"),
        elements.all("figcaption")[0][1],
    ) == ("a line", "the caption")


def test_a_figure_that_would_be_a_large_svg_is_embedded_as_png(monkeypatch, drawn):
    monkeypatch.setattr(page, "LARGEST_SVG", 100)
    elements = Elements(Page("t").figure(drawn, "c", "a").html())
    assert not elements.all("svg")
    image = elements.all("img")[0][0]
    assert image["src"].startswith("data:image/png;base64,iVBOR")
    assert image["style"].startswith("width: 288px")  # 3 inches


def test_consecutive_figures_share_a_box(drawn):
    whole = Page("t").figure(drawn, "c", "a").figure(drawn, "c", "a").paragraph("x").figure(drawn, "c", "a")
    elements = Elements(whole.html())
    assert len([1 for attributes, _ in elements.all("div") if attributes.get("class") == "figures"]) == 2


def test_empty_lines_separate_paragraphs():
    assert [text for _, text in Elements(Page("t").paragraph("a\nb\n\nc").html()).all("p")] == ["a\nb", "c"]


def test_a_page_is_written_as_utf8(tmp_path):
    Page("größer – 1 × 2").write(tmp_path / "page.html")
    content = (tmp_path / "page.html").read_bytes().decode()
    assert re.search('<meta charset="utf-8">', content)
    assert "größer – 1 × 2" in content


def test_a_file_name_that_is_not_utf_8_can_be_written(tmp_path):
    Page("runs").paragraph("outputs/\udcff").write(tmp_path / "page.html")
    assert "outputs/\\udcff" in (tmp_path / "page.html").read_bytes().decode()
