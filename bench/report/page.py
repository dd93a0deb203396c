"""The page: findings and figures into one HTML file that opens from disk, without a network.

Its template, style sheet and script are in `bench/page`; Vega-Embed, which draws, is put into it whole.
"""

import base64
import gzip
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench.formats import Sheet, numeric, to_csv
from bench.measurement import time_tables
from bench.measurement.measurements import Measurement
from bench.records import TimingRecord, TrialRecord
from bench.report import charts, shell_commands, time_breakdown, time_charts
from bench.report.findings import Findings, find, parts
from bench.report.headline import headline, verdict
from bench.report.load import ReportInput, data_of
from bench.report.style import PAGE, Figure
from melcnn.errors import visible

TEMPLATES = Path(__file__).parent / "templates"

# Points of a figure that a person can read as a table; more are there as CSV.
MOST_IN_TABLE = 60

SPEECH_COMMANDS = (
    "Speech Commands v0.02 is by Pete Warden and Google, licensed CC BY 4.0 (arXiv:1804.03209); clips are "
    "named as its files are."
)
STUDY = "The study's figures are those of a log-mel keyword-spotting study on its yes and no; single runs."
SYNTHETIC = "Synthetic words are spoken by eSpeak NG (GPL-3.0-or-later): not a measure of real speech."
SECONDS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}

DRAWN = (
    "Figures are drawn by Vega, Vega-Lite and Vega-Embed, copyright University of Washington Interactive Data Lab, "
    "3-clause BSD licence."
)


def page(gathered: ReportInput, command: str) -> str:
    """Return the HTML; the same records give the same page.

    Args:
        command: makes this page, and is shown on it.
    """
    found = [find(chapter) for chapter in gathered.chapters]
    data = [_part(number, one) for number, one in enumerate(found, 1)]
    times = [_times(number, name, one) for number, (name, one) in enumerate(gathered.measurements.items(), 1)]
    drawn = [(one["id"], one["figures"] + one["more"]) for part in data for one in part["sections"]]
    drawn += [(part["id"], [part["first"]]) for part in data if part["first"]]
    drawn += [(time["id"], time["figures"]) for time in times]
    figures = {f"{home}-{figure.name}": figure for home, own in drawn for figure in own}
    script = _script()
    template = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        # What is no markup of ours: words, names of files.
        finalize=lambda value: visible(value) if type(value) is str else value,
    ).get_template("page.html")
    return template.render(
        version=version("melbench"),
        title=_title(found),
        lead=_lead(found, gathered),
        style=Markup(_file("page.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        parts=data,
        times=times,
        remarks=_general_remarks(found, times),
        environments=_environments(gathered),
        commands=[*shell_commands.again(gathered.chapters), command],
        attribution=_attribution(gathered),
        specs=_packed({name: _for_download(figure) for name, figure in figures.items()}),
        most_in_table=MOST_IN_TABLE,
        sort_value=sort_value,
        numeric=numeric,
        csv_link=_csv_link,
        numbers_of=_numbers,
    )


def _part(number: int, found: Findings) -> dict[str, Any]:
    identity, sweeps = f"data-{number}", parts(found)
    figures = charts.figures(found, PAGE)
    # The one that shows the answer stands beside it.
    first = next((figure for figure in figures if figure.name == "accuracy-macs"), None)
    whole = _section(identity, found.chapter.name, found, [figure for figure in figures if figure is not first])
    whole["wrong"] = found.wrong if found.wrong and found.wrong.records else None
    sections = [whole]
    if len(sweeps) > 1:
        whole["title"] += ": all sweeps together"
        sections = []
        for place, (name, own) in enumerate(sweeps, 1):
            # Confusions are the answer's.
            drawn = [figure for figure in charts.figures(own, PAGE) if figure.name != "confusion"]
            sections.append(_section(f"{identity}-sweep-{place}", f"Sweep over {name}", own, drawn[:1]))
            sections[-1] |= {"verdict": verdict(own), "more": drawn[1:]}
        sections.append(whole)
    return {
        "id": identity,
        "name": found.chapter.name,
        "answer": headline(found),
        "data": data_of(found.chapter),
        "remarks": found.remarks,
        "first": first,
        "sections": sections,
    }


def _section(identity: str, title: str, found: Findings, figures: Sequence[Figure]) -> dict[str, Any]:
    return {
        "id": identity,
        "title": title,
        "verdict": "",
        "sheets": found.sheets,
        "configurations": found.configurations,
        "figures": figures,
        "more": [],
        "wrong": None,
    }


def _times(number: int, name: str, measurement: Measurement) -> dict[str, Any]:
    return {
        "id": f"times-{number}",
        "name": Path(name).name,
        "figures": time_charts.times(time_breakdown.points(measurement), PAGE),
        "sheet": time_tables.times(measurement),
        "remarks": time_tables.remarks(measurement),
    }


def sort_value(cell: str) -> float | None:
    """Return the number that a cell begins with, in its base unit; None for text, such as a speaker's name."""
    found = re.match(r"(?:x )?([-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?)(?!\S)(?: (ns|µs|ms|s)(?!\S))?", cell)
    value = float(found[1].replace(",", "")) * SECONDS.get(found[2], 1.0) if found else math.inf
    return value if math.isfinite(value) else None


def _title(found: Sequence[Findings]) -> str:
    words = list(dict.fromkeys(one.chapter.words for one in found))
    if not words:
        return "Where time goes"
    named = f"{', '.join(words[0][:-1])} and {words[0][-1]}" if len(words) == 1 and len(words[0]) <= 6 else "the words"
    synthetic = " (synthetic speech)" if all(one.chapter.dataset == "synthetic" for one in found) else ""
    return f"The cheapest network that recognises {named}{synthetic}"


def _lead(found: Sequence[Findings], gathered: ReportInput) -> list[str]:
    """Return the data, where all is of one data set, and what was trained on it."""
    records = [record for one in found for record in (*one.chapter.trials, *one.chapter.folds)]
    if not records:
        return ["", _counted(len(gathered.measurements), "measurement") + " of time."]
    configurations = sum(len(one.configurations) for one in found)
    dates = sorted({record.finished_at[:10] for record in records})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    data = f"{found[0].chapter.dataset}: {data_of(found[0].chapter)}." if len(found) == 1 else ""
    if found[0].chapter.dataset == "synthetic" and data:
        data += " Not a measure of real speech."
    return [data, f"{_counted(len(records), 'network')} of {_counted(configurations, 'configuration')}, {when}."]


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'s' * (number != 1)}"


def _general_remarks(found: Sequence[Findings], times: Sequence[object]) -> list[str]:
    remarks = []
    if not found:
        remarks.append("No records of trainings: no accuracies and no recommendation; name the folder of a sweep, too.")
    if not times:
        remarks.append(
            "No measurement of where time goes: 'melbench time groups -o FILE' makes one, which this page takes beside "
            "the records."
        )
    return remarks


def _environments(gathered: ReportInput) -> Sheet:
    """Return each environment once, with the number of records that it made."""
    kinds: Counter[tuple[tuple[str, object], ...]] = Counter()
    for record in _records(gathered):
        own = record.environment.model_dump()
        packages = own.pop("packages")
        kinds[tuple((own | packages).items())] += 1
    names = list(dict.fromkeys(name for kind in kinds for name, _ in kind))
    records = [{"records": count, **{name: dict(kind).get(name) for name in names}} for kind, count in kinds.items()]
    cells = [[_text(value) for value in record.values()] for record in records]
    return Sheet("what ran where", list(records[0]), cells, records)


def _records(gathered: ReportInput) -> Iterable[TrialRecord | TimingRecord | Measurement]:
    for chapter in gathered.chapters:
        yield from chapter.trials
        yield from chapter.folds
        yield from chapter.timings
    yield from gathered.measurements.values()


def _attribution(gathered: ReportInput) -> list[str]:
    data = {chapter.dataset for chapter in gathered.chapters}
    lines = [(SPEECH_COMMANDS, "speech_commands"), (STUDY, "speech_commands"), (SYNTHETIC, "synthetic")]
    return [*(text for text, name in lines if name in data), DRAWN]


def _numbers(figure: Figure) -> Sheet:
    """Return the points of a figure as a table."""
    names = [name for name in figure.points[0] if not name.startswith("beside_")]
    records = [{name: point[name] for name in names} for point in figure.points]
    cells = [[_text(record[name]) for name in names] for record in records]
    return Sheet(figure.title, [name.replace("_", " ") for name in names], cells, records)


def _text(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value).lower()
    return f"{value:,}" if isinstance(value, int) else str(value)


def _csv_link(sheet: Sheet) -> str:
    return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(to_csv(sheet).encode()).decode()}"


def _file(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _script() -> str:
    bundle = vl_convert.javascript_bundle(_file("page.js"))
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _for_download(figure: Figure) -> dict[str, Any]:
    """Return a figure's specification with data that a spreadsheet may open: the page offers them as they are."""
    (name,) = figure.spec["datasets"]
    return figure.spec | {"datasets": {name: to_csv(Sheet("", [], [], figure.points))}}


def _packed(content: object) -> str:
    """Return compressed JSON as letters and digits: configuration names repeat in thousands of points."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
