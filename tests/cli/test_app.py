import csv
import json
import subprocess
import sys

import pytest
import torch

from bench.analysis import summary
from bench.cli.app import _after_sweep
from melcnn import configure
from melcnn.kernels import cuda
from tests.helpers.records import network

SMALL = ["n_mels=16", "channels=16", "hop_length=800", "n_fft=256", "batch_size=16"]


@pytest.fixture
def swept(melbench, corpus, tmp_path):
    arguments = [
        "sweep",
        "groups=1,2",
        *SMALL,
        "--data",
        corpus,
        "--seeds",
        2,
        "--epochs",
        1,
        "--out",
        tmp_path / "runs",
    ]
    return lambda *more: melbench(*arguments, *more)


def test_standard_output_carries_the_result_alone(swept, tmp_path):
    code, out, err = swept("--csv", tmp_path / "t.csv")
    assert code == 0 and "params" in out and "groups=1" in err
    assert swept("--format", "csv")[1] == (tmp_path / "t.csv").read_text()
    assert [row["groups"] for row in json.loads(swept("--json")[1])] == [1, 2]
    with open(tmp_path / "t.csv") as file:
        (first, _) = csv.DictReader(file)
    # 16 mels, 16 channels: 3 convolutions of 16 x 16 x 3 + 16, BatchNorms, 16 x 128 + 128, 128 x 2 + 2
    assert first["params"] == str(3 * (16 * 16 * 3 + 16) + 2 * (48 + 128) + 16 * 128 + 128 + 256 + 2)


BAD = {
    "unknown word": (["groups", "--words", "yes,maybe"], "'maybe' is not in"),
    "one word alone": (["groups", "--words", "yes"], "one word alone"),
    "missing data": (["groups", "--data", "nowhere"], "does not exist"),
    "groups": (["groups=3"], "one of 1, 2, 4, 8, 16"),
    "n_mels": (["n_mels=500"], "1 to 201"),
    "n_fft": (["n_fft=3"], "n_fft"),
    "n_fft longer than a clip allows": (["n_fft=100000"], "n_fft"),
    "axis": (["colour"], "no axis"),
    "format": (["groups", "--format", "xml"], "table, json, csv"),
    "device": (["groups", "--device", "tpu"], "auto, cpu or cuda"),
    "seeds": (["groups", "--seeds", "0"], "--seeds"),
    "epochs": (["groups", "--epochs", "0"], "epochs"),
    "recipe": (["groups", "--recipe", "magic"], "recipe"),
    "out": (["groups", "--out", "{file}/runs"], "--out"),
    "csv": (["groups", "--csv", "{file}/t.csv"], "cannot be written"),
    "csv folder": (["groups", "--csv", "/"], "is a folder"),
    "csv name": (["groups", "--csv", "x" * 250], "cannot be written"),
    "long path": (["groups", "--data", "x" * 300], "name too long"),
    "newline": (["groups", "--data", "a\nb"], "does not exist"),
    "hop_length": (["hop_length=6000"], "1 to 5333"),
    "batch size": (["groups", "--batch-size", str(10**20)], "batch_size"),
    "seeds no number": (["groups", "--seeds", "abc"], "--seeds"),
    "too many seeds": (["groups", "--seeds", str(10**9)], "--seeds"),
    "same twice": (["groups=1,01"], "twice"),
    "two formats": (["groups", "--json", "--format", "csv"], "use one of them"),
}


@pytest.mark.parametrize("arguments, message", BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_exit_code_2(melbench, corpus, tmp_path, arguments, message):
    (tmp_path / "file").write_text("")
    given = [a.format(file=tmp_path / "file") for a in arguments]
    defaults = [] if "--data" in given else ["--data", corpus]
    code, out, err = melbench("sweep", *given, *defaults, *([] if "--out" in given else ["--out", tmp_path / "runs"]))
    assert code == 2 and not out and message.lower() in err.lower()
    assert err.count("\n") == 1 and err.startswith("melbench: ")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_cuda_where_there_is_none(melbench, corpus, tmp_path):
    code, _, err = melbench("sweep", "groups", "--data", corpus, "--device", "cuda", "--out", tmp_path / "runs")
    assert code == 2 and "--device cuda" in err and err.count("\n") == 1


def test_a_spoilt_record_stops_the_sweep_and_is_kept(swept, tmp_path):
    swept()
    path = next((tmp_path / "runs").glob("trial-*"))
    path.write_text(path.read_text()[:1000])
    code, out, err = swept()
    assert code == 2 and path.name in err and not out
    assert len(path.read_text()) == 1000


def test_help_imports_no_torch():
    code = "import sys; sys.argv = ['melbench', '--help']\nfrom bench.cli.app import main\n"
    code += "try: main()\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    assert "sweep" in subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_interrupted(melbench, corpus, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.executors.jobs.fit", interrupt)
    code, _, err = melbench("sweep", "groups", "--data", corpus, "--out", tmp_path)
    assert code == 130 and "goes on" in err


def test_a_sweep_ends_with_the_command_that_goes_on():
    one, four = configure(recipe="default"), configure(groups=4, recipe="default")
    data, given = ["--data", "my data"], {"--words": "go,stop", "--recipe": None, "--batch-size": 32, "--epochs": None}

    def command(wrong):
        # Of groups=4 as many of 20 validation clips are wrong: none, or one, which is five points.
        records = [network(trial, seed, miss) for trial, miss in ((one, ()), (four, wrong)) for seed in (0, 1, 2)]
        return _after_sweep(records, summary.recommended(records), ["groups=1,4"], data, given)

    assert command(()) == "melbench train groups=4 --data 'my data' -o network.safetensors"
    assert command((0,)) == "melbench recommend groups=1,4 --data 'my data' --words go,stop --batch-size 32"


@pytest.mark.parametrize(
    "command",
    [
        "sweep groups --data nowhere",
        "train groups=1 --data nowhere -o network.safetensors",
        "recommend --data nowhere",
        "reproduce --data nowhere",
        "time groups=3",
        "compare groups=1 groups=3",
    ],
)
def test_a_precision_is_set_before_anything_is_computed(melbench, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    with cuda.computing_in("mixed"):
        code, _, err = melbench(*command.split(), "--precision", "bf16")
        assert (code, err) == (2, "melbench: --precision bf16 is not known: use fp32 or tf32\n")
        assert cuda.precision() == "mixed"
        for options, expected in (["--precision", "tf32"], "tf32"), ([], "fp32"):
            assert melbench(*command.split(), *options)[0] == 2 and cuda.precision() == expected
