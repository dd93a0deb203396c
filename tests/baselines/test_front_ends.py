"""Front-ends side by side."""

from bench.baselines import front_ends
from tests.helpers.configurations import plain


def test_front_ends_side_by_side(clips, monkeypatch):
    monkeypatch.setattr(front_ends, "BATCHES", (1, 16))
    monkeypatch.setattr(front_ends, "ROUNDS", 7)
    rows = front_ends.measure(plain(n_mels=40).front_end, clips, "cpu", "a CPU")
    assert [(row.way, row.batch_size) for row in rows] == [(w, b) for w in ("torchaudio", "melbench") for b in (1, 16)]
    assert all(row.max_error < 1e-3 and row.clips == len(clips) for row in rows)
    # The errors are to torchaudio in double precision, to which its own float32 has one.
    assert all(row.max_error > 0 for row in rows if row.way == "torchaudio")
    best = max(row.clips_per_s for row in rows[:2])
    assert {row.speed_ratio for row in rows if row.way == "torchaudio" and row.clips_per_s == best} == {1.0}
    sheet = front_ends.sheet(rows)
    assert [front_ends.FrontEndRow(**record) for record in sheet.records] == rows and len(sheet.cells) == 4
