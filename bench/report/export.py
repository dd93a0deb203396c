"""The figures of a report as files for papers: PNG, SVG and PDF, as wide as a column."""

import itertools
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any
from xml.sax.saxutils import escape

import vl_convert

from bench.report import charts, time_breakdown, time_charts
from bench.report.findings import find, parts
from bench.report.load import ReportInput
from bench.report.style import PAPER, Figure
from melcnn.errors import InputError
from melcnn.files import make_folder, write_whole

PIXELS_PER_INCH = 300


def write_figures(gathered: ReportInput, folder: Path) -> Iterator[Path]:
    """Write every figure as a whole file and yield the paths; each of several data sets, sweeps or measurements has a
    folder.

    Raises:
        InputError: there is nothing to draw, or the folder cannot be written.
    """
    sets: dict[Path, list[Figure]] = {}
    for chapter in gathered.chapters:
        name = f"{chapter.dataset}-{'-'.join(chapter.words)}"
        found = find(chapter)
        for sweep, own in [("", found), *parts(found)] if len(found.sweeps) > 1 else [("", found)]:
            sets[free_folder(_plain(f"{name}-{sweep}"), sets)] = charts.figures(own, PAPER)
    for name, measurement in gathered.measurements.items():
        sets[free_folder(_plain(Path(name).stem), sets)] = time_charts.times(time_breakdown.points(measurement), PAPER)
    sets = {name: figures for name, figures in sets.items() if figures}
    if not sets:
        raise InputError("these records have nothing to draw: name a folder of records, as --out of a sweep made it")
    for label, figures in sets.items():
        home = folder / label if len(sets) > 1 else folder
        try:
            make_folder(home)
            for figure in figures:
                for suffix in (".svg", ".png", ".pdf"):
                    path, content = home / f"{figure.name}{suffix}", image(figure.spec, suffix)
                    if suffix == ".svg":
                        content = _told(content, figure)
                    write_whole(path, partial(_write, content))
                    yield path
        except OSError as error:
            raise InputError(f"{home} cannot be written ({error.strerror}): choose another --figures") from None


def _plain(name: str) -> Path:
    """Return a folder name of letters, digits and dashes, which every typesetting program takes."""
    return Path("".join(c if c.isalnum() else "-" for c in name).strip("-")[:60] or "figures")


def _told(svg: bytes, figure: Figure) -> bytes:
    """Return `svg` with its title as its name and its caption as its description, for screen readers (SVG 2, 5.8)."""
    root, end, rest = svg.partition(b">")
    labels = f"<title>{escape(figure.title)}</title><desc>{escape(figure.caption)}</desc>"
    return root + b' role="graphics-document"' + end + labels.encode() + rest


def image(spec: dict[str, Any], suffix: str) -> bytes:
    """Draw a specification as SVG, PNG or PDF, by a file's suffix; a px is a point on paper. Raises `InputError`."""
    if suffix == ".svg":
        return vl_convert.vegalite_to_svg(spec).encode()
    if suffix == ".png":
        return vl_convert.vegalite_to_png(spec, ppi=PIXELS_PER_INCH)
    if suffix == ".pdf":
        return vl_convert.vegalite_to_pdf(spec)
    raise InputError(f"there are no pictures of kind {suffix!r}: use .svg, .png or .pdf")


def free_folder(home: Path, taken: Collection[Path]) -> Path:
    """Return `home`, numbered if it is taken: different texts may give one name, and some file systems ignore case."""
    names = {str(path).casefold() for path in taken}
    numbered = (home.with_name(f"{home.name}-{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([home], numbered) if str(path).casefold() not in names)


def _write(content: bytes, file: IO[bytes]) -> None:
    file.write(content)
