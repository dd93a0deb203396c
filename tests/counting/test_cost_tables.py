"""`melbench profile`, as a person runs it."""

import json
import sys
import textwrap

import pytest

from bench.counting import lint
from bench.counting.profile import make_inputs, profile
from melcnn import MelCNN
from tests.helpers.configurations import plain

CONTRACT = ("params", "weight_bytes", "macs", "macs_all_layers", "flops", "pipeline_macs", "activations")


@pytest.fixture
def my_models(tmp_path, monkeypatch):
    """A module of somebody's models in the folder where the command runs."""
    (tmp_path / "my_models.py").write_text(
        textwrap.dedent(
            """
            import torch
            from torch import nn

            class Net(nn.Sequential):
                def __init__(self):
                    convolution = nn.Conv1d(80, 8, 3, bias=False)
                    super().__init__(convolution, nn.BatchNorm1d(8), nn.Flatten(), nn.Linear(792, 2))

            class Wave(nn.Module):
                def forward(self, x):
                    return torch.fft.rfft(x).abs()

            class Inverse(nn.Module):
                def forward(self, x):
                    return torch.linalg.inv(x @ x.mT + torch.eye(x.shape[-2]))

            class Branching(nn.Module):
                def forward(self, x):
                    return x * 2 if x.sum() > 0 else x

            ready = nn.Linear(3, 3)
            number = 7

            def text():
                return "no module"

            def fails():
                raise RuntimeError("out of paper\\nsecond line")
            """
        )
    )
    (tmp_path / "broken_models.py").write_text("import this_is_nowhere\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_models", raising=False)


def test_a_configuration(melbench):
    code, out, _ = melbench("profile", "--groups", 16, "--json")
    found = json.loads(out)
    assert code == 0 and set(CONTRACT) <= set(found["totals"])
    assert found["totals"]["macs"] == 67_232 and found["totals"]["macs_all_layers"] == 95_906
    assert found["totals"]["weight_bytes"] == 4 * 5_890
    assert sum(layer["macs"] for layer in found["layers"]) == 67_232
    stages = {stage["stage"]: stage["macs"] for stage in found["front_end"]}
    # pipeline: the network, the dense mel matrix 201 x 80 x 101, and half of 2.5 N log2 N a frame
    assert found["totals"]["pipeline_macs"] == 67_232 + 201 * 80 * 101 + stages["FFT"]
    assert stages["FFT"] == round(101 * 1.25 * 400 * 8.643856189774724)
    # Each FFT bin between the first and the last filter's edge lies in at most two triangles.
    assert 0 < stages["mel matrix, sparse as it could be"] <= 2 * 199 * 101
    remarks = " ".join(row["remark"] for row in found["remarks"])
    assert "the front-end dominates: 97%" in remarks and "9 of 80 mel filters see a single FFT bin" in remarks
    assert "in 16 groups" in remarks and "bias of embedding.1 is pure overhead" in remarks


def test_the_table(melbench):
    code, out, _ = melbench("profile")
    assert code == 0 and "1,010,432" in out and "1,039,106" in out and "blocks.0.0" in out and "fvcore" in out


def test_anybodys_model(melbench, my_models):
    code, out, _ = melbench("profile", "--model", "my_models:Net", "--input", "1,80,101", "--json")
    found = json.loads(out)
    assert code == 0
    # kernel 3 without padding: 99 positions of 8 channels; then 792 x 2
    assert found["totals"]["macs"] == 99 * 8 * 80 * 3 + 792 * 2 == found["totals"]["pipeline_macs"]
    assert found["totals"]["params"] == 8 * 80 * 3 + 16 + 792 * 2 + 2
    assert json.loads(melbench("profile", "--model", "my_models:ready", "--input", "2,3", "--json")[1])
    wave = json.loads(melbench("profile", "--model", "my_models:Wave", "--input", "1,1024", "--json")[1])
    assert wave["totals"]["macs"] == 0 and wave["totals"]["pipeline_macs"] == 1.25 * 1024 * 10
    branching = json.loads(melbench("profile", "--model", "my_models:Branching", "--input", "4", "--json")[1])
    assert "only the path of this (random) input" in branching["remarks"][0]["remark"]


def test_uncounted_operators(melbench, my_models):
    arguments = ["profile", "--model", "my_models:Inverse", "--input", "3,5"]
    code, out, err = melbench(*arguments)
    assert code == 2 and not out and "linalg_inv_ex" in err and "--allow-uncounted" in err and err.count("\n") == 1
    code, out, _ = melbench(*arguments, "--allow-uncounted", "--json")
    found = json.loads(out)
    assert code == 0 and {"kind": "linalg_inv_ex (no formula)", "macs_all_layers": ""} in found["kinds"]
    assert found["totals"]["macs"] == 3 * 5 * 3


BAD = {
    "no colon": (["--model", "my_models", "--input", "1"], "package.module:factory"),
    "no module": (["--model", "nowhere:Net", "--input", "1"], "no module 'nowhere'"),
    "broken module": (["--model", "broken_models:Net", "--input", "1"], "no module 'this_is_nowhere'"),
    "no factory": (["--model", "my_models:Nett", "--input", "1"], "my_models has no 'Nett'"),
    "not callable": (["--model", "my_models:number", "--input", "1"], "is a int"),
    "not a module": (["--model", "my_models:text", "--input", "1"], "made a str, expected an nn.Module"),
    "raises": (["--model", "my_models:fails", "--input", "1"], "RuntimeError: out of paper"),
    "no input": (["--model", "my_models:Net"], "go together"),
    "no model": (["--input", "1,2"], "go together"),
    "no shape": (["--model", "my_models:Net", "--input", "1,-2"], "is no shape"),
    "refused": (["--model", "my_models:Net", "--input", "1,3,101"], "refuses an input of shape 1x3x101"),
    "two inputs": (["--model", "my_models:Net", "--input", "1,80,101", "--input", "2"], "refuses an input"),
    "groups": (["--groups", "3"], "one of 1, 2, 4, 8, 16"),
}


@pytest.mark.parametrize("arguments, message", BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_exit_code_2(melbench, my_models, arguments, message):
    code, out, err = melbench("profile", *arguments)
    assert code == 2 and not out and message in err and err.count("\n") == 1


def test_lint_of_front_ends_and_groups():
    assert lint.of_trial(plain(n_mels=20)) == []
    (dead, single) = lint.of_trial(plain(n_mels=128))
    assert dead.startswith("4 of 128 mel filters see no FFT bin") and "single FFT bin" in single
    (groups,) = lint.of_trial(plain(n_mels=20, groups=4))
    assert "sees 5 of 20 mel channels" in groups and "fewer groups (1, 2)" in groups


def test_lint_of_layers():
    from torch import nn

    model = nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.MaxPool1d(1), nn.Conv1d(4, 4, 3), nn.ReLU())
    found = lint.of_profile(profile(model, make_inputs(model, [(1, 2, 9)])))
    assert len(found) == 2 and "bias of 0 is pure overhead" in found[0] and "pooling 2" in found[1]
    # In the study's network a ReLU stands between each convolution and its BatchNorm; only the embedding has none.
    network = MelCNN()
    (only,) = lint.of_profile(profile(network, make_inputs(network, [(1, 80, 101)])))
    assert "embedding.1" in only
