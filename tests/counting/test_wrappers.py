"""Models in wrappers, with lazy, shared or quantised layers: each counts as what it computes."""

import json

import pytest
import torch
from torch import nn
from torch.ao import quantization
from torch.nn.utils import parametrizations, weight_norm

from bench.counting import cost_tables

pytestmark = pytest.mark.filterwarnings("ignore")


def linear():
    return nn.Linear(10, 11)


def convolutions():
    return nn.Sequential(nn.Conv1d(4, 8, 3), nn.ReLU())


class Shared(nn.Module):
    """Two parents of one layer."""

    def __init__(self):
        super().__init__()
        layer = nn.Linear(10, 10)
        self.a, self.b = nn.Sequential(layer), nn.Sequential(layer)

    def forward(self, x):
        return self.b(self.a(x))


def quantised():
    model = nn.Sequential(quantization.QuantStub(), *convolutions(), nn.Flatten(), nn.Linear(8 * 18, 3)).eval()
    model.qconfig = quantization.get_default_qconfig(torch.backends.quantized.engine)
    quantization.prepare(model, inplace=True)
    model(torch.randn(2, 4, 20))
    return quantization.convert(model)


# Parameters and MACs of one input. A linear layer of 10 x 11 has 121 and 110; convolutions of 8 x 4 x 3 at 18 places
# have 96 + 8 and 1728; a linear layer of 144 x 3 after them 435 and 432.
MODELS = {
    "shared": (Shared, (1, 10), 110, 200),
    "data parallel": (lambda: nn.DataParallel(linear()), (1, 10), 121, 110),
    "compiled": (lambda: torch.compile(linear()), (1, 10), 121, 110),
    "traced": (lambda: torch.fx.symbolic_trace(convolutions()), (1, 4, 20), 104, 1728),
    "exported": (lambda: torch.export.export(convolutions(), (torch.randn(1, 4, 20),)).module(), (1, 4, 20), 104, 1728),
    # A length for each of the eleven rows more, and the same products.
    "weight norm": (lambda: parametrizations.weight_norm(linear()), (1, 10), 132, 110),
    "weight norm by a hook": (lambda: weight_norm(linear()), (1, 10), 132, 110),
    "spectral norm": (lambda: parametrizations.spectral_norm(linear()), (1, 10), 121, 110),
    "lazy": (lambda: nn.Sequential(nn.LazyConv1d(8, 3), nn.Flatten(), nn.LazyLinear(3)), (1, 4, 20), 539, 2160),
    "dynamically quantised": (
        lambda: quantization.quantize_dynamic(nn.Sequential(linear()), {nn.Linear}),
        (1, 10),
        121,
        110,
    ),
    "quantised": (quantised, (1, 4, 20), 539, 2160),
}


@pytest.mark.parametrize(
    ("make", "shape", "params", "macs"),
    # A compiler takes as long as all others together.
    [pytest.param(*model, id=name, marks=[pytest.mark.slow] * (name == "compiled")) for name, model in MODELS.items()],
)
def test_a_wrapper_counts_as_what_it_wraps(make, shape, params, macs):
    model = make()
    totals, *_, remarks = cost_tables.of_model("it", model, [shape], allow_uncounted=False)
    assert (totals.records[0]["params"], totals.records[0]["macs"]) == (params, macs)
    assert not any("nothing reads" in row["remark"] for row in remarks.records)


def test_quantised_weights_take_a_byte():
    totals, *_ = cost_tables.of_model("it", quantised(), [(1, 4, 20)], allow_uncounted=False)
    # 96 + 432 weights of one byte, 8 + 3 biases of four.
    assert totals.records[0]["weight_bytes"] == 96 + 432 + 4 * (8 + 3)


def test_another_counter_that_is_wrong_costs_nothing(melbench, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "shared_model.py").write_text(
        "from torch import nn\n\n\nclass Shared(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        layer = nn.Linear(10, 10)\n        self.a, self.b = nn.Sequential(layer), nn.Sequential(layer)\n\n"
        "    def forward(self, x):\n        return self.b(self.a(x))\n"
    )
    code, out, _ = melbench("profile", "--model", "shared_model:Shared", "--input", "1,10", "--json")
    found = json.loads(out)
    assert code == 0 and found["totals"]["macs"] == 200
    # ptflops counts the layer, with its bias, for each parent and each call.
    assert {"counter": "ptflops", "item": "unexplained", "macs": 220} in found["counters"]
    assert any(row["remark"].startswith("ptflops differs by +220 MACs") for row in found["remarks"])


def test_what_is_not_counted_is_said_in_one_line(melbench, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "quantised_lstm.py").write_text(
        "from torch import nn\nfrom torch.ao.quantization import quantize_dynamic\n\n\n"
        "def make():\n    return quantize_dynamic(nn.Sequential(nn.LSTM(10, 5)), {nn.LSTM})\n"
    )
    code, out, err = melbench("profile", "--model", "quantised_lstm:make", "--input", "3,1,10")
    assert code == 2 and not out and "no formula for the operator aten::quantized_lstm" in err
