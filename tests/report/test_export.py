"""Figures as files: each of its kind, as wide as a column, legible, told to who cannot see; each set in its folder."""

import io
import os
import re
import xml.etree.ElementTree as ElementTree

import pytest
from PIL import Image

from bench.measurement import workloads
from bench.report import charts, export
from bench.report.export import PIXELS_PER_INCH, image, write_figures
from bench.report.findings import find
from bench.report.load import ReportInput
from bench.report.style import PAPER
from melcnn import InputError
from tests.helpers.configurations import plain
from tests.helpers.records import chapter, measurement, network

# Most papers' columns are 3.5 inches wide, of 72 points each; nothing in them is smaller than 7 points.
COLUMN, SMALLEST = 3.5 * 72, 7
STARTS = {".svg": b"<svg", ".png": b"\x89PNG\r\n\x1a\n", ".pdf": b"%PDF-"}
SVG = "{http://www.w3.org/2000/svg}"


def networks(words=("yes", "no"), **changes):
    return chapter([network(plain(groups=groups, words=words), **changes) for groups in (1, 2)])


def written(folder, *chapters, **measurements):
    return list(write_figures(ReportInput(chapters, measurements), folder))


def times():
    return measurement(workloads.of_trial(plain(), ["latency"]), [1.0])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return written(tmp_path_factory.mktemp("figures"), networks())


def of_kind(files, suffix):
    return [path for path in files if path.suffix == suffix]


def test_every_figure_is_written_as_each_kind_of_file(files):
    names = [figure.name for figure in charts.figures(find(networks()), PAPER)]
    assert [path.name for path in files] == [f"{name}{suffix}" for name in names for suffix in STARTS]
    for path in files:
        assert path.read_bytes().startswith(STARTS[path.suffix]), path.name
    # Nothing else is left there.
    assert sorted(files[0].parent.iterdir()) == sorted(files)


def test_figures_are_as_wide_as_a_column(files):
    for path in of_kind(files, ".svg"):
        assert float(re.search(r'<svg[^>]* width="([\d.]+)"', path.read_text())[1]) == COLUMN, path.name
    for path in of_kind(files, ".png"):
        assert Image.open(path).width == COLUMN / 72 * PIXELS_PER_INCH, path.name
    for path in of_kind(files, ".pdf"):
        box = re.search(rb"/MediaBox\s*\[\s*0 0 ([\d.]+) [\d.]+\s*\]", path.read_bytes())
        assert float(box[1]) == COLUMN, path.name


def test_what_is_written_in_figures_is_legible(files):
    for path in of_kind(files, ".svg"):
        sizes = [float(size) for size in re.findall(r'font-size="([\d.]+)(?:px)?"', path.read_text())]
        assert sizes and min(sizes) >= SMALLEST, path.name


def test_a_picture_says_what_it_is_to_who_cannot_see_it(files):
    made = {figure.name: figure for figure in charts.figures(find(networks()), PAPER)}
    for path in of_kind(files, ".svg"):
        root = ElementTree.parse(path).getroot()
        # SVG 2, 5.8: the first children of what they name.
        title, description = root[0], root[1]
        assert (title.tag, description.tag) == (f"{SVG}title", f"{SVG}desc")
        assert (title.text, description.text) == (made[path.stem].title, made[path.stem].caption)


def test_words_of_anybody_stay_words(tmp_path):
    found = networks(words=("</title><script>", "../& up"))
    for path in of_kind(written(tmp_path, found), ".svg"):
        root = ElementTree.parse(path).getroot()
        assert not list(root.iter(f"{SVG}script")), path.name
        assert path.parent == tmp_path


def test_the_same_records_make_the_same_pictures(files, tmp_path):
    for path in of_kind(written(tmp_path, networks()), ".svg"):
        assert path.read_bytes() == (files[0].parent / path.name).read_bytes()


def homes(folder, *chapters, **measurements):
    return {str(path.parent.relative_to(folder)) for path in written(folder, *chapters, **measurements)}


def test_several_data_sets_and_measurements_have_folders_of_their_own(tmp_path):
    few = [chapter([network(plain(words=words))]) for words in (("yes", "no"), ("go", "stop"))]
    assert homes(tmp_path, *few, **{"runs/times.json": times()}) == {
        "speech-commands-yes-no", "speech-commands-go-stop", "times",
    }  # fmt: skip
    # Of what has nothing to draw there is none, and one alone needs none.
    nothing = measurement(workloads.of_trial(plain(), ["step"]), [1.0])
    assert homes(tmp_path / "alone", few[0], nothing=nothing) == {"."}


def test_folders_are_not_open_to_everybody(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "image", lambda spec, suffix: b"<svg>")
    before = os.umask(0)
    try:
        written(tmp_path / "new" / "figures", networks())
    finally:
        os.umask(before)
    assert {(tmp_path / name).stat().st_mode & 0o002 for name in ("new", "new/figures")} == {0}


def test_names_that_are_no_folders_make_some(tmp_path):
    # Punctuation is a dash, capitals are the same to some file systems, and what is left of nothing is "figures".
    names = {"a/x y.json": "x-y", "b/x_y.json": "x-y-2", "X.Y.json": "X-Y-3", "b/...": "figures"}
    assert homes(tmp_path, **{name: times() for name in names}) == set(names.values())
    (long,) = homes(tmp_path / "long", **{"a" * 100: times(), "b": times()}) - {"b"}
    assert long == "a" * 60


def test_nothing_to_draw_is_one_line(tmp_path):
    nothing = measurement(workloads.of_trial(plain(), ["step"]), [1.0])
    with pytest.raises(InputError, match=r"^these records have nothing to draw: name a folder [^\n]*$"):
        written(tmp_path / "figures", nothing=nothing)
    assert not (tmp_path / "figures").exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("a file")
    with pytest.raises(InputError, match=rf"^{re.escape(str(taken))} cannot be written \([^\n]*\): choose another"):
        written(taken, networks())
    # Nor can a file where a folder of its name is.
    (tmp_path / "accuracy-macs.svg" / "within").mkdir(parents=True)
    with pytest.raises(InputError, match=rf"^{re.escape(str(tmp_path))} cannot be written \([^\n]*\): choose another"):
        written(tmp_path, networks())
    assert not list(tmp_path.glob(".*"))


def test_other_kinds_of_picture_are_one_line():
    spec = charts.figures(find(networks()), PAPER)[0].spec
    with pytest.raises(InputError, match=r"^there are no pictures of kind '.gif': use .svg, .png or .pdf$"):
        image(spec, ".gif")
    assert Image.open(io.BytesIO(image(spec, ".png"))).format == "PNG"


def test_words_stand_as_they_are(tmp_path):
    # In a table for spreadsheets these two begin with an apostrophe; a picture computes nothing.
    (confusion,) = [path for path in written(tmp_path, networks(("-yes", "=no"))) if path.name == "confusion.svg"]
    assert re.findall(r">'?([-=](?:yes|no))<", confusion.read_text()) == ["-yes", "=no"] * 2
    assert ">'" not in confusion.read_text()
