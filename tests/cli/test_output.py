"""How commands end: what is printed, what is written, and what is said of that which a format leaves out."""

import io

import pandas
import pytest

from bench.cli.output import deliver, keep
from bench.formats import Sheet

TOTALS = Sheet("totals", ["", "value"], [["macs", "3"]], [{"macs": 3}], single=True)
LAYERS = Sheet("the layers", ["layer", "macs"], [["a", "1"], ["b", "2"]], [{"layer": x, "macs": 1} for x in "ab"])
NOTHING = Sheet("remarks", [], [], [])


def test_csv_is_one_table_and_a_notice_names_the_others(capsys):
    deliver([TOTALS, LAYERS, NOTHING], "csv", main="the_layers")
    out, err = capsys.readouterr()
    assert out == "layer,macs\na,1\nb,1\n"
    assert err == "CSV holds one table, the_layers: --format json has totals too\n"
    deliver([TOTALS, LAYERS, NOTHING], "csv")
    out, err = capsys.readouterr()
    assert out == "macs\n3\n" and "totals: --format json has the_layers too" in err
    deliver([LAYERS, NOTHING], "csv")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("format", ["table", "json", "markdown", "latex"])
def test_other_formats_have_every_table_that_holds_anything(capsys, format):
    deliver([TOTALS, LAYERS, NOTHING], format, main="the_layers")
    out, err = capsys.readouterr()
    assert "totals" in out and "layer" in out and ("remarks" in out) == (format == "json") and not err


def test_the_main_table_is_written_whatever_is_printed(capsys, tmp_path):
    deliver([TOTALS, LAYERS], "markdown", tmp_path / "a.csv", main="the_layers")
    assert (tmp_path / "a.csv").read_text() == "layer,macs\na,1\nb,1\n"
    deliver([NOTHING], "table", tmp_path / "b.csv")
    assert not (tmp_path / "b.csv").exists(), "a table without a row has no columns"


def test_a_table_is_kept_as_csv_and_markdown(tmp_path):
    keep(LAYERS, tmp_path / "layers.csv", "\nThat was all.\n")
    assert (tmp_path / "layers.csv").read_text() == "layer,macs\na,1\nb,1\n"
    text = (tmp_path / "layers.md").read_text()
    assert text.startswith("the layers\n\n| layer | macs |\n| :--- | ---: |\n") and text.endswith("\n\nThat was all.\n")


@pytest.mark.parametrize(
    ("command", "first"),
    [(["profile", "--groups", "4"], "layer"), (["data", "info", "--words", "yes,no"], "word")],
)
def test_commands_with_several_tables_print_the_one_that_a_spreadsheet_wants(melbench, corpus, command, first):
    command = [*command, *(["--data", corpus] if command[0] == "data" else [])]
    code, out, err = melbench(*command, "--format", "csv")
    frame = pandas.read_csv(io.StringIO(out))
    assert code == 0 and frame.columns[0] == first and len(frame) > 1
    assert "CSV holds one table" in err
