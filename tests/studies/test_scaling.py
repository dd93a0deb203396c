"""What a trial costs the driver, in a short form; `python -m bench.studies.scaling` measures 10,000."""

import gc
import tracemalloc

import numpy as np

from bench.records import Predictions, RecordFolder, TrialRecord, read
from bench.records.arrays import Numbers, Rows
from bench.studies import fake_training
from bench.studies.scaling import sheet
from bench.sweep.run import train_missing
from tests.docs.test_columns import check
from tests.helpers.configurations import plain
from tests.helpers.records import trial_record

# Five groups of ten seeds.
FEWEST = 50


def test_a_sweep_that_trains_nothing():
    row = fake_training.simulate("threads", FEWEST)
    assert (row["trials"], row["configurations"], row["clips"]) == (50, 5, 187 + 824)
    assert 0 < row["driver_before_bytes"] <= row["driver_peak_bytes"] and row["scheduling_time_ms"] > 0
    made = sheet([row])
    check("python -m bench.studies.scaling", list(made.records[0]))
    assert len(made.cells[0]) == len(made.headings)


def test_a_record_takes_little_memory():
    clips, epochs = 1000, 120
    names = [f"yes/{number:08x}_nohash_0.wav" for number in range(clips)]
    rng, curve = np.random.default_rng(0), [0.5] * epochs

    def record(seed):
        said = Predictions(
            names=list(names), speakers=list(names), labels=[0] * clips, logits=rng.random((clips, 2)).tolist()
        )
        curves = dict.fromkeys(("train_loss", "validation_loss", "validation_accuracy", "elapsed_seconds"), curve)
        return trial_record(seed, validation=said, test=said, **curves)

    made = [record(0)]
    gc.collect()
    tracemalloc.start()
    try:
        made += [record(seed) for seed in range(1, 51)]
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] / 50
    finally:
        tracemalloc.stop()
    # Of one split 1000 x 2 logits of 4 bytes, 4 x 120 numbers of 8 bytes, and as much again for all the rest.
    assert taken < 2 * (1000 * 2 * 4 + 4 * 120 * 8)


def test_every_record_is_read_once(tmp_path, monkeypatch):
    folder, clips, executor = RecordFolder(tmp_path), fake_training._clips(), fake_training._executor("threads")
    trials = [plain(groups=groups) for groups in (1, 2)]
    with executor as threads:
        first, _ = train_missing(trials, 8, clips, folder, threads)
        found, original = [], read
        monkeypatch.setattr(
            "bench.records.folder.read", lambda path, kind: found.append(path.name) or original(path, kind)
        )
        again, _ = train_missing(trials, 9, clips, folder, threads)
    assert sorted(found) == sorted(record.file_name for record in first) and len(again) == 2 * 9


def test_compact_lists_are_lists_to_whoever_reads_them():
    rows, numbers = Rows([[0.5, 0.25], [1e39, -1.0]]), Numbers([0.5, 0.1])
    assert (
        rows == [[0.5, 0.25], [float("inf"), -1.0]] and list(rows) == rows and rows[0] == [0.5, 0.25] and len(rows) == 2
    )
    assert rows != [[0.5, 0.25]] and Rows([]) == [] and np.argmax(rows, axis=1).tolist() == [0, 0]
    # A float64 loses nothing; a float32 is told by its shortest digits.
    assert numbers == [0.5, 0.1] and numbers != [0.5] and [*numbers] == [0.5, 0.1] and max(numbers) == 0.5
    record = trial_record(train_loss=[0.1], logits=[[0.1, 0.9], [0.7, 0.3]])
    assert (
        TrialRecord.model_validate(dict(record)) == record == TrialRecord.model_validate_json(record.model_dump_json())
    )
    assert (
        '"train_loss":[0.1]' in record.model_dump_json()
        and '"logits":[[0.1,0.9],[0.7,0.3]]' in record.model_dump_json()
    )
