"""Convolutions beside torch's: which shapes, what they cost, and that table, CSV and picture say the same."""

import csv
import io
import math

import pytest

from bench import formats
from bench.baselines import convolutions
from bench.baselines.convolutions import ConvolutionRow, Shape
from bench.studies import convolution_grid
from bench.studies.convolution_grid import GRID
from melcnn import native
from melcnn.errors import InputError
from tests.helpers.configurations import plain


@pytest.fixture
def compiled():
    if native.library() is None:
        pytest.skip("there is no C compiler")


def test_the_shapes_are_the_networks(compiled):
    found = convolutions.of_trials([plain(groups=groups) for groups in (1, 16)])
    # 101 frames, halved twice; one channel a group wherever as many channels come in as go out.
    assert [(s.layer, s.groups, s.channels_in, s.channels_out, s.frames) for s in found] == [
        (1, 1, 80, 32, 101),
        (1, 16, 80, 32, 101),
        (2, 1, 32, 32, 50),
        (2, 16, 32, 32, 50),
        (2, 32, 32, 32, 50),
        (3, 1, 32, 32, 25),
        (3, 16, 32, 32, 25),
        (3, 32, 32, 32, 25),
    ]
    # frames x channels out x channels in of a group x taps
    assert [s.macs_a_clip for s in found[:3]] == [101 * 32 * 80 * 3, 101 * 32 * 5 * 3, 50 * 32 * 32 * 3]
    assert [s.input_gradient for s in found] == [False] * 2 + [True] * 6
    assert Shape(groups=1, channels_in=2, channels_out=3, frames=7, stride=2, batch_size=1).macs_a_clip == 4 * 3 * 2 * 3


def test_a_stack_is_as_many_networks():
    one, five = (convolutions.of_trials([plain(groups=4)], replicas)[0] for replicas in (1, 5))
    assert five.macs_a_clip == 5 * one.macs_a_clip and five.groups == one.groups
    x, weight, bias = convolutions._tensors(five, "training", "cpu")
    assert x.shape == (64, 5 * 80, 101) and weight.shape == (5 * 32, 20, 3) and bias.shape == (160,)
    assert convolutions._settings(five)[-1] == 5 * 4


def test_the_grid_is_200_shapes():
    assert len(set(GRID)) == 200


@pytest.fixture(scope="module")
def rows():
    if native.library() is None:
        pytest.skip("there is no C compiler")
    shapes = convolutions.of_trials([plain(groups=groups, channels=8, n_mels=8, batch_size=4) for groups in (1, 4)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolutions, "ROUNDS", 6)
        return convolutions.measure(shapes, "cpu")


def test_there_is_no_floor_of_a_busy_machine(rows, tmp_path):
    busy = [row.model_copy(update={"torch_times_floor": None, "melbench_times_floor": None}) for row in rows]
    sheet = convolutions.sheet(busy)
    assert {cells[sheet.headings.index("x floor")] for cells in sheet.cells} == {""}
    table, target = tmp_path / "groups.csv", tmp_path / "groups.svg"
    table.write_text(formats.to_csv(sheet))
    convolution_grid.main(["picture", str(table), str(target)])
    assert "floor" not in target.read_text()


def test_table_csv_and_picture(rows, tmp_path):
    assert [(row.direction, row.layer) for row in rows[:3]] == [("forward", 1), ("training", 1), ("forward", 1)]
    for row in rows:
        assert row.speed_ratio_low95 <= row.speed_ratio <= row.speed_ratio_high95
        assert row.torch_time_s / row.torch_times_floor == pytest.approx(
            row.melbench_time_s / row.melbench_times_floor, rel=1e-4
        )
        assert row.chosen in ("melcnn", "torch")
    sheet = convolutions.sheet(rows)
    text = formats.to_csv(sheet)
    table, target = tmp_path / "groups.csv", tmp_path / "groups.svg"
    table.write_text(text)
    lines = csv.DictReader(io.StringIO(text))
    back = [ConvolutionRow.model_validate({k: v or None for k, v in line.items()}) for line in lines]
    assert back == rows
    convolution_grid.main(["picture", str(table), str(target)])
    # A line each for torch, melbench and the floor.
    largest = max(row.batch_size for row in rows)
    panels = {(row.layer, row.direction) for row in rows if row.batch_size == largest}
    assert target.read_text().count('aria-roledescription="line mark"') == 3 * len(panels)
    with pytest.raises(InputError, match="no pictures of kind '.nothing'"):
        convolution_grid.main(["picture", str(table), str(tmp_path / "groups.nothing")])


def test_what_is_called_slower_is_measured_again(compiled, monkeypatch, tmp_path, capsys):
    verdicts = iter([(1.0, 0.99, 1.01, "SAME"), (1.1, 1.05, 1.2, "SLOWER"), (1.0, 0.9, 1.1, "UNCLEAR")])
    monkeypatch.setattr(convolution_grid, "GRID", GRID[:2])
    monkeypatch.setattr(convolution_grid, "_against_torch", lambda *arguments: next(verdicts))
    monkeypatch.setattr(convolution_grid, "_chosen", lambda *arguments: "torch")
    convolution_grid.main(["grid", str(tmp_path / "grid.csv")])
    with (tmp_path / "grid.csv").open(newline="") as file:
        assert [(row["verdict"], row["confirmed"]) for row in csv.DictReader(file)] == [
            ("SAME", ""),
            ("SLOWER", "UNCLEAR"),
        ]
    assert "2 shapes: melbench's kernels are chosen for 0; SLOWER than torch: 0" in capsys.readouterr().out


def test_the_intervals_of_the_grid(compiled, monkeypatch):
    monkeypatch.setattr(convolution_grid, "GRID_ROUNDS", 15)
    shape = Shape(groups=2, channels_in=4, channels_out=4, frames=9, batch_size=2)
    ratios = [0.01 * n for n in range(15)]
    monkeypatch.setattr(convolution_grid, "log_ratios", lambda pairs: ratios)
    ratio, low, high, verdict = convolution_grid._against_torch(shape, "cpu", convolutions.clock_for("cpu"))
    # 15 rounds: the extremes enclose the median with all but 2 / 2^15, which is less than 0.05 / 200, and the next two
    # with all but 2 x 16 / 2^15, which is more. For a single shape it would be the fourth on each side.
    assert len(GRID) == 200 and (ratio, low, high) == pytest.approx((math.exp(0.07), 1.0, math.exp(0.14)))
    assert verdict == "UNCLEAR"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("groups --against torch --epochs 2", "--epochs goes not with --against torch"),
        ("groups --against torch --what step", "torch times convolutions"),
        ("groups --against torch -o m.json", "-o goes not with --against"),
        ("groups --kernels ours", "--kernels ours is not known: use fastest or torch"),
    ],
)
def test_bad_input(melbench, arguments, says):
    code, out, err = melbench("time", *arguments.split())
    assert code == 2 and says in " ".join(err.split()) and not out


TABLE = """layer,groups,channels_in,channels_out,frames,batch_size,direction,macs,torch_time_s,melbench_time_s,\
speed_ratio,speed_ratio_low95,speed_ratio_high95,torch_times_floor,melbench_times_floor,chosen,device
1,4,80,32,101,64,forward,10,0.1,0.05,2.0,1.9,2.1,9.0,4.5,melcnn,a CPU
"""


def test_a_table_is_read_as_it_was_written(tmp_path):
    (tmp_path / "a.csv").write_text(TABLE)
    (row,) = convolution_grid.read(tmp_path / "a.csv")
    assert (row.layer, row.groups, row.torch_time_s, row.chosen) == (1, 4, 0.1, "melcnn")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("0.05", "fast", r"is no table of convolutions \(line 2, melbench_time_s: Input should be a valid number"),
        ("0.05", "0", "line 2 has no layer, or a time that is not positive"),
        ("0.05", "-0.05", "a time that is not positive"),
        ("0.05", "inf", "a time that is not positive"),
        ("0.05", "nan", "a time that is not positive"),
        ("\n1,4", "\n,4", "line 2, layer: Input should be a valid integer"),
        ("a CPU", '"' + "x" * 200_000, "field larger than field limit"),
        ("a CPU", "\udcff", "utf-8"),
        ("layer,", "layers,", "line 2 has no layer"),
        (TABLE[TABLE.index("\n") + 1 :], "", "holds no rows"),
        (TABLE, "", "holds no rows"),
    ],
)
def test_what_is_no_table(tmp_path, old, new, says):
    assert old in TABLE
    (tmp_path / "a.csv").write_bytes(TABLE.replace(old, new).encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=says) as caught:
        convolution_grid.read(tmp_path / "a.csv")
    assert "a.csv" in str(caught.value) and str(caught.value).endswith("--against torch --csv FILE' wrote")
    assert "\n" not in str(caught.value)


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"cannot be read \(No such file"):
        convolution_grid.read(tmp_path / "a.csv")
