"""The figures of a report as files for papers: PNG, SVG and PDF, as wide as a column."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import vl_convert

from bench import breakdown, plots
from bench.drawing import PAPER
from bench.findings import find
from bench.gathering import Gathered
from bench.plots import Figure
from melcnn.errors import InputError
from melcnn.files import write_whole

PIXELS_PER_INCH = 300


def write_figures(gathered: Gathered, folder: Path) -> Iterator[Path]:
    """Writes every figure, each file whole, and gives the files' paths. With several data sets or measurements, each
    has a folder of its own. Raises `InputError` if there is nothing to draw, or the folder cannot be made."""
    sets: dict[str, list[Figure]] = {}
    for chapter in gathered.chapters:
        name = f"{chapter.dataset}-{'-'.join(chapter.words)}"
        sets[_free(name, sets)] = plots.figures(find(chapter), PAPER)
    for name, measurement in gathered.measurements.items():
        sets[_free(Path(name).stem, sets)] = plots.times(breakdown.points(measurement), PAPER)
    sets = {name: figures for name, figures in sets.items() if figures}
    if not sets:
        raise InputError("these records have nothing to draw: name a folder of records, as --out of a sweep made it")
    for name, figures in sets.items():
        home = folder / name if len(sets) > 1 else folder
        try:
            home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"the folder {home} cannot be made ({error.strerror}): choose another") from None
        for figure in figures:
            for suffix in (".svg", ".png", ".pdf"):
                path, content = home / f"{figure.name}{suffix}", image(figure.spec, suffix)
                write_whole(path, lambda file, content=content: file.write(content))
                yield path


def _free(name: str, taken: dict[str, object]) -> str:
    """A folder's name made of letters, digits and dashes, which nobody has yet."""
    plain = "".join(c if c.isalnum() else "-" for c in name).strip("-")[:60] or "figures"
    return next(n for n in (plain, *(f"{plain}-{i}" for i in range(2, len(taken) + 3))) if n not in taken)


def image(spec: dict[str, Any], suffix: str) -> bytes:
    """A specification drawn as SVG, PNG or PDF, by the suffix of a file's name; a px is a point on paper. Raises
    `InputError` for another suffix."""
    if suffix == ".svg":
        return vl_convert.vegalite_to_svg(spec).encode()
    if suffix == ".png":
        return vl_convert.vegalite_to_png(spec, ppi=PIXELS_PER_INCH)
    if suffix == ".pdf":
        return vl_convert.vegalite_to_pdf(spec)
    raise InputError(f"there are no pictures of kind {suffix!r}: use .svg, .png or .pdf")
