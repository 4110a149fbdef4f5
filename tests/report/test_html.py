import base64
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from PIL import Image

from lastlayer.report import TextTable, confusion_figure, save_figure
from lastlayer.report.html import html_report

NASTY = """<script>alert("x")</script> & 'y'"""


class Page(HTMLParser):
    """Collects tags, text and image sources."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.sources, self.alts, self.text, self.open = [], [], [], "", []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "img":
            self.sources.append(dict(attrs)["src"])
            self.alts.append(dict(attrs)["alt"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def write(path, **changes):
    content = {
        "intro": "First.\n\nSecond.",
        "tables": {"Results": TextTable(("Head", "Error %"), (("softmax", "1.00"),), "In points.")},
        "figures": {"Confusion": confusion_figure([[3, 1], [0, 4]])},
        "sections": {"How to read": "Lower is better."},
    }
    html_report(path, changes.pop("title", "Report"), **(content | changes))
    return path.read_text(encoding="utf-8")


def test_page_is_balanced_and_holds_every_part(tmp_path):
    page = Page(write(tmp_path / "deep" / "report.html"))
    assert page.open == []
    for text in ("Report", "First.", "Second.", "softmax", "1.00", "In points.", "Confusion"):
        assert text in page.text
    assert page.tags.count("p") == 4
    assert page.tags.count("td") == 2


def test_page_refers_to_nothing_outside_itself(tmp_path):
    source = write(tmp_path / "report.html")
    assert "http://" not in source
    assert "https://" not in source
    assert not re.search(r"url\(|@import|<link|<script|src=\"(?!data:)", source)
    assert "default-src 'none'" in source


def test_figures_are_embedded_as_svg_or_as_the_files_bytes(tmp_path):
    png = save_figure(confusion_figure([[1, 0], [0, 1]]), tmp_path / "a.png", dpi=40)
    figures = {"drawn": confusion_figure([[1, 0], [0, 1]]), "file": png}
    page = Page(write(tmp_path / "report.html", figures=figures))
    svg, raster = page.sources
    assert page.alts == ["drawn", "file"]
    kind, content = svg.split(",")
    assert kind == "data:image/svg+xml;base64"
    assert ElementTree.fromstring(base64.b64decode(content)).tag.endswith("svg")
    assert base64.b64decode(raster.removeprefix("data:image/png;base64,")) == png.read_bytes()
    with Image.open(png) as image:
        image.verify()


def test_text_is_escaped_everywhere(tmp_path):
    page = Page(
        write(
            tmp_path / "report.html",
            title=NASTY,
            intro=NASTY,
            tables={"Results": TextTable((NASTY,), ((NASTY,),), NASTY)},
            figures={NASTY: confusion_figure([[1, 0], [0, 1]])},
            sections={NASTY: NASTY},
        )
    )
    assert "script" not in page.tags
    assert page.alts == [NASTY]
    assert page.text.count(NASTY) == 9  # window title, heading, intro, 3 in table, caption, 2


def test_parts_left_out_leave_no_empty_headings(tmp_path):
    page = Page(html_report(tmp_path / "report.html", "T").read_text(encoding="utf-8"))
    assert "h2" not in page.tags
    assert "table" not in page.tags


def test_the_same_input_gives_the_same_bytes(tmp_path):
    assert write(tmp_path / "a.html") == write(tmp_path / "b.html")


def test_a_bad_figure_file_is_named_and_the_old_report_stays(tmp_path):
    path = tmp_path / "report.html"
    before = write(path)
    empty = tmp_path / "empty.png"
    empty.touch()
    for bad, error in (
        (empty, ValueError),
        (tmp_path / "a.gif", FileNotFoundError),
        (path, ValueError),
    ):
        with pytest.raises(error, match=bad.name):
            write(path, figures={"bad": bad})
    assert path.read_text(encoding="utf-8") == before
