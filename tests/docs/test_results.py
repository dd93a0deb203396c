"""The reference results are what their records say, and the READMEs show these results."""

import csv
import io
import re
from pathlib import Path

import pytest

from bench import formats
from bench.analysis import summary
from bench.counting.profile import count
from bench.records import RecordFolder
from bench.report.export import write_figures
from bench.report.findings import OUT_OF_FOLD, find
from bench.report.load import load_report
from bench.studies import gains
from melcnn import MelCNN

ROOT = Path(__file__).parents[2]
SUBSET = ROOT / "results" / "speech_commands_subset"
RECIPES = ROOT / "results" / "recipes"
RECOMMENDATION = ROOT / "results" / "recommendation"
REPORT = ROOT / "results" / "report"
TABLES = [(SUBSET, "groups"), (SUBSET, "mels"), (RECIPES, "groups")]


def made_again(folder, name):
    """Rows from the records, for the configurations that the CSV names and the one run that timed them."""
    with open(folder / f"{name}.csv") as file:
        rows = list(csv.DictReader(file))
    wanted = [(int(row["n_mels"]), int(row["groups"])) for row in rows]
    kept = RecordFolder(folder / "records")

    def key(trial):
        return trial.front_end.n_mels, trial.model.groups

    records = {(*key(r.trial), r.seed): r for r in kept.trials().values()}
    (timing,) = [t for t in kept.timings().values() if [key(timed.trial) for timed in t.timed] == wanted]
    chosen = [records[(*axes, seed)] for axes in wanted for seed in range(int(rows[0]["seeds"]))]
    decided = summary.recommended(chosen)
    return summary.rows(chosen, timing, decided=decided), decided


@pytest.mark.parametrize(("folder", "name"), TABLES)
def test_tables_are_made_of_the_records(folder, name):
    rows, decided = made_again(folder, name)
    sheet = summary.sheet(rows, decided)
    assert formats.to_csv(sheet) == (folder / f"{name}.csv").read_text()
    assert formats.to_markdown(sheet) == (folder / f"{name}.md").read_text()
    for row in rows:
        counts = count(MelCNN(row.n_mels, row.groups), (1, row.n_mels, 101))
        assert (row.params, row.macs, row.macs_all_layers) == tuple(counts.model_dump().values())


@pytest.mark.parametrize("folder", [SUBSET, RECIPES])
def test_every_record_looked_at_the_same_clips_and_split_speakers(folder):
    records = list(RecordFolder(folder / "records").trials().values())
    assert len({r.data_fingerprint for r in records}) == 1
    assert len({tuple(r.test.names) for r in records}) == 1
    assert not set(records[0].test.speakers) & set(records[0].validation.speakers)


@pytest.mark.parametrize("name", ["yes-no", "go-stop", "ingredients"])
def test_the_gains_are_those_of_the_csv(name):
    with open(RECIPES / f"{name}.csv") as file:
        rows = list(csv.DictReader(file))
    lines = [line for line in (RECIPES / f"{name}.md").read_text().splitlines() if line.startswith("| ")][2:]
    for row, line in zip(rows, lines, strict=True):
        known = {key: float(row[key]) if row[key] else None for key in row if key.startswith(("gain", "error"))}
        shown = [f"{float(row.get('test_accuracy') or row['accuracy']):.4f}", *gains._gain_cells(known)]
        assert re.sub(r" ±[\d.]+", "", line).endswith(f"| {' | '.join(shown)} |")
        axes = [row[key] for key in ("n_mels", "groups", "variant", "recipe", "change") if key in row]
        assert line.startswith(f"| {' | '.join(axes)} |")


def test_the_recommendation_is_made_of_its_records():
    (chapter,) = load_report([RECOMMENDATION / "records"]).chapters
    sheet = find(chapter).sheets[OUT_OF_FOLD]
    stored = list(csv.DictReader((RECOMMENDATION / "candidates.csv").open()))
    made = list(csv.DictReader(io.StringIO(formats.to_csv(sheet))))
    # Weights are counted from networks, of which records hold none.
    assert [{**row, "weight_bytes": ""} for row in stored] == made
    assert formats.to_markdown(sheet) == (RECOMMENDATION / "candidates.md").read_text()


def test_the_stored_figures_are_of_the_records(tmp_path):
    stored = {path.name: path for path in (REPORT / "figures").glob("*.svg")}
    gathered = load_report([RECIPES / "records", RECOMMENDATION / "records", REPORT / "times.json"])
    drawn = {path.name: path for path in write_figures(gathered, tmp_path) if path.suffix == ".svg"}
    assert set(stored) == set(drawn)
    for name, path in drawn.items():
        # What each mark and axis says; how it is drawn may change with the library's version.
        told = re.findall(r'aria-label="([^"]*)"|<(?:title|desc)>([^<]*)', path.read_text())
        assert told == re.findall(r'aria-label="([^"]*)"|<(?:title|desc)>([^<]*)', stored[name].read_text()), name
        assert len(told) > 2


def test_the_stored_figure_shows_the_records():
    (chapter,) = load_report([RECIPES / "records", RECOMMENDATION / "records"]).chapters
    drawn = (REPORT / "figures" / "accuracy-macs.svg").read_text()
    label = r"accuracy: ([\d.]+); colour: [^;]*; shape: [^;]*; configuration: (groups[^;]*); macs: ([\d,]+)"
    shown = re.findall(label, drawn)
    wanted = [point for point in find(chapter).accuracies if point["measure"] == OUT_OF_FOLD]
    assert sorted((float(accuracy), name, macs) for accuracy, name, macs in shown) == sorted(
        (point["accuracy"], point["configuration"], f"{point['macs']:,}") for point in wanted
    )
