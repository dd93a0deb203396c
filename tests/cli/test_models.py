"""train, evaluate, predict and data, as a person runs them."""

import csv
import io
import json
import shutil
import sys
import tarfile

import numpy as np
import pytest
import soundfile

from bench.executors.jobs import Failure
from bench.sweep import run
from melcnn import load_checkpoint


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """A checkpoint of `melbench train` on the small corpus."""
    from bench.cli import app

    path = tmp_path_factory.mktemp("trained") / "small.safetensors"
    # Its words are steady tones, which the recipe default takes for the colour of a microphone.
    arguments = [
        "train",
        "--recipe",
        "plain",
        "--data",
        corpus,
        "--epochs",
        25,
        "--seeds",
        2,
        "--batch-size",
        16,
        "-o",
        path,
    ]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as exit:
        patch.setattr(sys, "argv", ["melbench", *map(str, arguments)])
        app.main()
    assert not exit.value.code
    return path


def test_train_keeps_the_best_of_its_seeds(melbench, corpus, tmp_path):
    path = tmp_path / "a.safetensors"
    arguments = ["train", "--data", corpus, "--epochs", 2, "--seeds", 3, "--n-mels", 16, "--groups", 4, "-o", path]
    code, out, _ = melbench(*arguments, "--json")
    rows = json.loads(out)
    assert code == 0 and [row["seed"] for row in rows] == [0, 1, 2]
    (kept,) = [row for row in rows if row["checkpoint"]]
    assert kept["val_accuracy_max"] == max(row["val_accuracy_max"] for row in rows) and path.exists()


def test_train_with_a_seed_that_failed_ends_with_1(melbench, corpus, tmp_path, monkeypatch):
    real = run.train_best

    def one_failed(*arguments, **options):
        networks, best, _ = real(*arguments, **options)
        return networks, best, [Failure(1, (0, 1), "error", "no luck")]

    monkeypatch.setattr(run, "train_best", one_failed)
    path = tmp_path / "a.safetensors"
    code, out, err = melbench("train", "--data", corpus, "--epochs", 1, "--seeds", 1, "-o", path)
    assert code == 1 and path.exists() and out and "failed: seed 1 (error): no luck" in err


def test_evaluate(melbench, trained, corpus):
    code, out, _ = melbench("evaluate", trained, "--data", corpus, "--json")
    sheets = json.loads(out)
    found = sheets["evaluation"]
    assert code == 0 and found["clips"] == 16 and found["dataset"] == "speech_commands"
    # Each clip of the corpus is of its own speaker.
    assert found["speakers"] == 16 and found["accuracy_low95"] <= found["accuracy"] <= found["accuracy_high95"]
    right = sum(row[f"heard_{row['spoken']}"] for row in sheets["confusion"])
    assert right / 16 == found["accuracy"] >= 0.75
    recalls = [row["recall"] for row in sheets["words"]]
    assert recalls == [row[f"heard_{row['spoken']}"] / 8 for row in sheets["confusion"]]
    for split, clips in (("all", 80), ("train", 48), ("validation", 16)):
        part = json.loads(melbench("evaluate", trained, "--data", corpus, "--split", split, "--json")[1])
        assert part["evaluation"]["clips"] == clips
    table = melbench("evaluate", trained, "--data", corpus)[1]
    assert "confusion" in table and "precision" in table
    code, out, err = melbench("evaluate", trained, "--data", corpus, "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(out))
    assert code == 0 and row == {name: str(value) for name, value in found.items()} and "most_wrong" in err


def test_train_takes_axes_and_does_not_overwrite(melbench, corpus, tmp_path):
    path = tmp_path / "a.safetensors"
    arguments = ["train", "groups=4", "n_mels=16", "variant=shuffle", "--data", corpus, "--epochs", 1, "-o", path]
    assert melbench(*arguments)[0] == 0
    trial = load_checkpoint(path).trial
    assert (trial.model.groups, trial.front_end.n_mels, trial.model.variant) == (4, 16, "shuffle")
    before = path.read_bytes()
    code, out, err = melbench(*arguments)
    assert (code, out) == (
        2,
        "",
    ) and f"{path} exists: name another checkpoint with -o, or overwrite it with --force" in err
    assert path.read_bytes() == before
    assert melbench(*arguments[:3], *arguments[4:], "--force")[0] == 0 and path.read_bytes() != before


def test_evaluate_uses_the_data_that_the_network_was_trained_on(melbench, corpus, tmp_path, monkeypatch):
    copy, path = shutil.copytree(corpus, tmp_path / "copy"), tmp_path / "a.safetensors"
    monkeypatch.chdir(tmp_path)
    assert melbench("train", "--data", "copy", "--epochs", 1, "-o", path)[0] == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, out, err = melbench("evaluate", path, "--json")
    assert code == 0 and json.loads(out)["evaluation"]["dataset"] == "speech_commands" and "is not what" not in err
    shutil.rmtree(copy)
    code, out, err = melbench("evaluate", path)
    assert (code, out) == (2, "")
    assert f"{path} was trained on {copy}, which is not here: name the data with --data" in " ".join(err.split())


def test_evaluate_on_other_clips_says_so_and_needs_no_splits(melbench, trained, corpus, tmp_path):
    for word in ("yes", "no"):
        (tmp_path / "own" / word).mkdir(parents=True)
        shutil.copy(next((corpus / word).iterdir()), tmp_path / "own" / word / "take.wav")
    code, out, err = melbench("evaluate", trained, "--data", tmp_path / "own", "--split", "all", "--json")
    assert code == 0 and json.loads(out)["evaluation"]["clips"] == 2 and "trained on some" not in err
    assert json.loads(out)["evaluation"]["speakers"] == "unknown"
    fewer = shutil.copytree(corpus, tmp_path / "fewer")
    next((fewer / "yes").iterdir()).unlink()
    code, _, err = melbench("evaluate", trained, "--data", fewer)
    assert code == 0 and "is not what" in err


def test_predict_files_folders_and_standard_input(melbench, trained, clips, corpus, tmp_path, monkeypatch):
    names = clips.names[clips.split("test")]
    for name in (names[0], names[-1]):
        (tmp_path / "own").mkdir(exist_ok=True)
        shutil.copy(corpus / name, tmp_path / "own" / name.replace("/", "_"))
    wave, rate = soundfile.read(corpus / names[0])
    stereo = io.BytesIO()
    soundfile.write(stereo, np.stack([wave, wave], 1), rate, format="OGG")
    monkeypatch.setattr(sys, "stdin", type("In", (), {"buffer": io.BytesIO(stereo.getvalue())}))
    code, out, _ = melbench("predict", trained, corpus / names[-1], tmp_path / "own", "-", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0 and len(rows) == 4 and rows[3]["file"] == "-"
    assert rows[0]["word"] == "no" and rows[0]["probability"] == rows[1]["probability"]  # no_... before yes_...
    assert all(0.5 <= float(row["probability"]) <= 1 for row in rows)


def test_predict_says_what_it_left_out(melbench, trained, clips, corpus, tmp_path):
    (tmp_path / "bad.wav").write_text("no audio")
    code, out, err = melbench("predict", trained, tmp_path / "bad.wav", corpus / clips.names[0], "--json")
    assert code == 2 and len(json.loads(out)) == 1
    assert "bad.wav is no audio" in err and "1 of 2 files" in err


def test_data_info_without_words_lists_them(melbench, corpus, tmp_path):
    code, out, _ = melbench("data", "info", "--data", corpus, "--json")
    assert code == 0 and json.loads(out) == [
        {"word": word, "recordings": len(list((corpus / word).iterdir()))} for word in ("go", "no", "stop", "yes")
    ]
    with tarfile.open(tmp_path / "corpus.tar.gz", "w:gz") as archive:
        archive.add(corpus, "corpus")
    assert melbench("data", "info", "--data", tmp_path / "corpus.tar.gz", "--json")[1] == out
    (tmp_path / "empty").mkdir()
    code, out, err = melbench("data", "info", "--data", tmp_path / "empty")
    assert (code, out) == (2, "") and "holds no word folder with audio files: expected word/clip.wav" in err
    code, _, err = melbench("data", "info", "--data", "synthetic")
    assert code == 2 and "give --words, such as --words yes,no" in err


def test_data_info(melbench, corpus, tmp_path):
    copy = shutil.copytree(corpus, tmp_path / "copy")
    test, train = ((copy / "testing_list.txt").read_text().split(), sorted(p.name for p in (copy / "yes").iterdir()))
    train = next(f"yes/{name}" for name in train if name.startswith("00") and name[6:8] == "00")
    shutil.copy(copy / test[0], copy / train)  # the same recording in two splits
    (copy / test[1]).write_bytes(b"")  # broken
    soundfile.write(copy / test[2], np.full(16_000, 0.001), 16_000, subtype="PCM_16")  # nearly silent
    code, out, err = melbench("data", "info", "--data", copy, "--words", "yes,no", "--json")
    found = json.loads(out)
    checks = {check["finding"]: check for check in found["checks"]}
    assert code == 0 and "left out 1 of 80" in err
    assert checks["same recording in two splits"]["clips"] == 1
    assert checks["same recording in two splits"]["such_as"] == f"{train} = {test[0]}"
    again = [path for path in sorted((copy / "no").iterdir()) if path.name[6:8] == "00"][:2]
    shutil.copy(again[0], again[1])  # twice in one split is no leak
    found_again = json.loads(melbench("data", "info", "--data", copy, "--words", "yes,no", "--json")[1])
    assert found_again["checks"][1]["clips"] == 1
    assert checks["left out"]["clips"] == 1 and checks["nearly silent"]["clips"] == 1
    yes_test = next(row for row in found["clips"] if (row["word"], row["split"]) == ("yes", "test"))
    assert yes_test["clips"] == yes_test["speakers"] == 7


def test_data_prepare_then_auto(melbench, corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("MELBENCH_CACHE", str(tmp_path / "cache"))
    code, out, err = melbench("data", "prepare", "--data", corpus, "--words", "yes,go")
    assert code == 0 and "go" in out and "prepared in" in err
    code, out, _ = melbench("data", "prepare", "--data", corpus, "--words", "yes,go", "--json")
    assert code == 0 and {row["word"] for row in json.loads(out)["clips"]} == {"yes", "go"}
    code, out, err = melbench("data", "info", "--words", "yes,no")
    assert code == 2 and "melbench data prepare --words yes,no" in err
    assert "(go, yes)" in melbench("--version")[1]


@pytest.mark.parametrize("format", ["table", "csv", "json", "markdown", "latex"])
def test_names_of_folders_do_no_harm(melbench, corpus, tmp_path, format):
    words = ["=cmd|'a'!A0", "[red]<b>\x1b[2J", "\u202e%&_{}\\"]
    for word, source in zip(words, ("yes", "no", "go"), strict=True):
        shutil.copytree(corpus / source, tmp_path / word)
    code, out, _ = melbench("data", "info", "--data", tmp_path, "--words", ",".join(words), "--format", format)
    assert code == 0 and not {"\x1b", "\u202e"} & set(out)
    if format == "json":
        assert [row["word"] for row in json.loads(out)["clips"][::3]] == words
    shown = {
        "table": ["=cmd|'a'!A0", "[red]<b>\\x1b[2J", "\\u202e%&_{}\\"],
        "csv": ["\n'=cmd|'a'!A0,", "[red]<b>\\x1b[2J", "\\u202e%&_{}\\"],
        "json": ["[red]<b>\\u001b[2J", "\\u202e%&_{}\\\\"],
        "markdown": ["=cmd\\|'a'!A0", "\\[red\\]&lt;b&gt;\\\\x1b\\[2J", r"%&amp;\_{}"],
        "latex": [r"=cmd\textbar{}'a'!A0", r"{[}red]\textless{}b\textgreater{}", r"\%\&\_\{\}\textbackslash{}"],
    }[format]
    assert all(text in out for text in shown)


def test_version(melbench):
    code, out, _ = melbench("--version")
    assert code == 0 and "torch 2." in out and "threads" in out and "prepared speech" in out


BAD = {
    "checkpoint": (["evaluate", "nowhere.safetensors"], "cannot be read"),
    "split": (["evaluate", "x", "--split", "exam"], "no split 'exam'"),
    "predict": (["predict", "nowhere.safetensors", "a.wav"], "cannot be read"),
    "groups": (["train", "--groups", "3"], "one of 1, 2, 4, 8, 16"),
    "output": (["train", "-o", "{tmp}/nowhere/a.safetensors"], "cannot be written"),
    "seeds": (["train", "--data", "{corpus}", "--seeds", "0", "-o", "{tmp}/a"], "--seeds"),
    "word": (["data", "prepare", "--words", "yes"], "one word alone"),
    "info": (["data", "info", "--data", "nowhere"], "does not exist"),
    "format": (["data", "info", "--format", "xml"], "use one of table"),
}


@pytest.mark.parametrize("arguments, message", BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_exit_code_2(melbench, corpus, tmp_path, arguments, message):
    code, out, err = melbench(*(a.format(tmp=tmp_path, corpus=corpus) for a in arguments))
    assert code == 2 and not out and message in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_every_command_has_an_example(melbench):
    for command in (["sweep"], ["train"], ["evaluate"], ["predict"], ["data", "prepare"], ["data", "info"]):
        code, out, _ = melbench(*command, "--help")
        assert code == 0 and f"melbench {' '.join(command)}" in out.split("Example", 1)[1]
