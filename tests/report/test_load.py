"""What is put together, what is parted, what is left out and said, and what is refused."""

from pathlib import Path

import pytest

from bench.measurement import measurements, workloads
from bench.records import RESULTS_VERSION
from bench.report.load import load_report
from melcnn import configure
from melcnn.data.clips import Fold
from melcnn.errors import InputError
from tests.helpers.configurations import plain
from tests.helpers.records import (
    ENVIRONMENT,
    failure_record,
    folds,
    heard,
    measurement,
    network,
    timing_record,
    written,
)

ONE, TWO = (configure(recipe="plain", groups=groups) for groups in (1, 2))
TIMES = measurement(workloads.of_trial(ONE, ["latency"]), [1.0])
EARLIER = {"results_version": RESULTS_VERSION - 1}


def gathered(*paths):
    """The report's input of these paths."""
    return load_report(paths)


def of(folder, *records):
    """The chapters of records in one folder."""
    return gathered(written(folder, *records).path).chapters


def test_folders_and_files_are_put_together(tmp_path):
    first = [network(ONE, 0), network(ONE, 1), timing_record(ONE)]
    second = [network(ONE, 1), network(TWO, 0)]  # one of them is in the first, too
    written(tmp_path / "a", *first)
    written(tmp_path / "b", *second)
    measurements.write_measurement(TIMES, tmp_path / "a" / "times.json")
    measurements.write_measurement(TIMES, tmp_path / "alone.json")
    found = gathered(tmp_path / "a", tmp_path / "b", tmp_path / "alone.json")
    (chapter,) = found.chapters
    assert {(record.trial, record.seed) for record in chapter.trials} == {(ONE, 0), (ONE, 1), (TWO, 0)}
    assert len(chapter.trials) == 3 and chapter.timings == (first[2],) and not chapter.remarks
    assert (chapter.dataset, chapter.words) == ("speech_commands", ("yes", "no"))
    assert list(found.measurements) == [str(tmp_path / "a" / "times.json"), str(tmp_path / "alone.json")]
    assert gathered(tmp_path / "a", tmp_path / "a") == gathered(tmp_path / "a")


def test_measurements_alone_make_no_chapter(tmp_path):
    measurements.write_measurement(TIMES, tmp_path / "times.json")
    for path in (tmp_path, tmp_path / "times.json"):
        assert not gathered(path).chapters and len(gathered(path).measurements) == 1


def test_data_sets_and_words_are_parted(tmp_path):
    others = [network(ONE, dataset="synthetic", data_fingerprint="f01"), network(plain(words=("go", "stop")))]
    chapters = of(tmp_path, network(ONE), *others)
    assert {chapter.name: len(chapter.trials) for chapter in chapters} == {
        "speech_commands: yes, no": 1, "synthetic: yes, no": 1, "speech_commands: go, stop": 1,
    }  # fmt: skip
    assert not any(chapter.remarks for chapter in chapters)


@pytest.mark.parametrize(
    ("changes", "apart"),
    [
        ({"test": heard(10, of="theirs")}, "20 training, 20 validation and 10 test clips"),
        ({"validation": heard(12, of="theirs")}, "20 training, 12 validation and 20 test clips"),
        ({"train_clips": 1212}, "1,212 training, 20 validation and 20 test clips"),
    ],
)
def test_other_clips_are_another_set(tmp_path, changes, apart):
    new = network(ONE, 1, data_fingerprint="f01", **changes)
    second, first = of(tmp_path, network(ONE, 0), new)
    assert first.name == f"speech_commands: yes, no ({apart})" and first.trials == (new,)
    assert second.apart == "20 training, 20 validation and 20 test clips" and len(second.trials) == 1
    remark = "one of several sets of clips of speech_commands: yes, no: what they say is not to be compared"
    assert first.remarks == second.remarks == (remark,)


def test_synthetic_words_come_last(tmp_path):
    records = [
        network(ONE, dataset="synthetic", data_fingerprint="f01"),
        network(ONE),
        network(ONE, dataset="mine", data_fingerprint="f02"),
    ]
    assert [chapter.dataset for chapter in of(tmp_path, *records)][-1] == "synthetic"


def test_the_same_network_with_other_results(tmp_path):
    written(tmp_path / "a", network(ONE, 0), network(ONE, 1))
    written(tmp_path / "b", network(ONE, 0, wrong=(3,)), network(ONE, 1))
    (chapter,) = gathered(tmp_path / "a", tmp_path / "b").chapters
    assert [record.validation.accuracy for record in chapter.trials] == [1.0, 1.0]
    (remark,) = chapter.remarks
    assert remark == "in several folders, with other results: 1 of the networks; the folder named first counts"
    # 19 of 20 right, and 20.
    (other,) = gathered(tmp_path / "b", tmp_path / "a").chapters
    assert sorted(record.validation.accuracy for record in other.trials) == [19 / 20, 1.0]


def test_folds_stand_with_their_data_set(tmp_path):
    (chapter,) = of(tmp_path, network(ONE), *folds(ONE), *folds(TWO))
    assert len(chapter.trials) == 1 and len(chapter.folds) == 10 and not chapter.remarks
    go = plain(words=("go", "stop"))
    words, alone = of(tmp_path, *folds(go)), of(tmp_path / "alone", *folds(ONE))
    # Not with networks that have heard other clips, were it as many.
    strangers = [
        fold.model_copy(update={"test": heard(8, of="strangers", first=8 * number)})
        for number, fold in enumerate(folds(ONE))
    ]
    for number, records in enumerate([folds(ONE, clips=9), strangers]):
        chapters = of(tmp_path / str(number), network(ONE), *records)
        assert [bool(one.trials) + bool(one.folds) for one in chapters] == [1, 1]
    assert {chapter.words: len(chapter.folds) for chapter in words} == {("yes", "no"): 10, ("go", "stop"): 5}
    assert [(one.dataset, one.trials, len(one.folds)) for one in alone] == [("speech_commands", (), 5)]


def test_earlier_numbers_are_left_out(tmp_path):
    old = [network(ONE, seed, **EARLIER) for seed in (0, 1)]
    (chapter,) = of(tmp_path, network(ONE), *old, timing_record(ONE, **EARLIER), *folds(ONE, **EARLIER))
    assert [record.results_version for record in chapter.trials] == [RESULTS_VERSION]
    assert not chapter.folds and not chapter.timings
    # Two networks, their timing, and five folds.
    assert chapter.remarks == ("8 records are left out: of an earlier version of melbench's numbers",)
    # Where all are of that version, they are among their like.
    (alike,) = of(tmp_path / "alike", *old, timing_record(ONE, **EARLIER))
    assert len(alike.trials) == 2 and len(alike.timings) == 1 and not alike.remarks


def test_of_other_recordings_by_the_same_names_the_most_are_kept(tmp_path):
    before = network(ONE, data_fingerprint="f00", finished_at="2026-01-31T23:59:59+00:00")
    after = network(ONE, data_fingerprint="f01", finished_at="2026-02-01T00:00:00+00:00")
    for number, records in enumerate([(before, before.model_copy(update={"seed": 1}), after), (before, after)]):
        (chapter,) = of(tmp_path / str(number), *records)
        (remark,) = chapter.remarks
        assert remark == "1 record is left out: the data was another then, recordings or folds, by the same names"
        assert len({record.data_fingerprint for record in chapter.trials}) == 1
        assert len(chapter.trials) == len(records) - 1


def test_noise_is_no_other_data(tmp_path):
    noisy = configure(recipe="default", noise=True)
    assert noisy.training.noise
    (chapter,) = of(tmp_path, network(ONE, data_fingerprint="f00"), network(noisy, data_fingerprint="f01"))
    assert len(chapter.trials) == 2 and not chapter.remarks


def test_folds_of_more_clips_are_another_set(tmp_path):
    old, new = [*folds(ONE, 0), *folds(ONE, 1)], folds(ONE, 0, clips=9, finished_at="2026-02-01")
    sizes = {chapter.apart: len(chapter.folds) for chapter in of(tmp_path, *old, *new)}
    assert sizes == {"45 clips in folds": 5, "40 clips in folds": 10}
    # So, too, where the cross-validation over the new clips has only just begun.
    begun = {chapter.apart: chapter.folds for chapter in of(tmp_path / "begun", *old, new[0])}
    assert [record.fold for record in begun["45 clips in folds"]] == [Fold(0, 5)]


def divided_otherwise(seeds, folds_done, finished_at):
    """Networks of folds that hold out the same clips in another order, of the first `folds_done` folds."""
    found = []
    for seed in range(seeds):
        records = folds(ONE, seed, finished_at=finished_at)
        for number in range(folds_done):
            changes = {"test": records[(number + 1) % 5].test, "data_fingerprint": f"otherwise, fold {number + 1}"}
            found.append(records[number].model_copy(update=changes))
    return found


def test_divisions_of_different_corpora_are_different_sets(tmp_path):
    whole = [record for seed in (0, 1) for record in folds(ONE, seed, corpus="c0")]
    begun = [record.model_copy(update={"corpus": "c1"}) for record in divided_otherwise(5, 2, "2026-02-01")]
    found = {chapter.folds[0].corpus: chapter for chapter in of(tmp_path, *whole, *begun)}
    assert {corpus: len(chapter.folds) for corpus, chapter in found.items()} == {"c0": 10, "c1": 10}
    assert all("one of several sets of clips" in chapter.remarks[0] for chapter in found.values())


def test_recordings_that_are_made_again_are_another_set(tmp_path):
    records = [network(ONE, seed, corpus=f"c{seed}", data_fingerprint=f"f0{seed}") for seed in (0, 1)]
    chapters = of(tmp_path, *records, *folds(ONE, corpus="c1"))
    assert {c.trials[0].corpus: len(c.folds) for c in chapters} == {"c0": 0, "c1": 5}


def test_records_of_before_join_the_corpus_with_the_same_clips(tmp_path):
    (chapter,) = of(tmp_path, network(ONE, 0), network(ONE, 1, corpus="c0"), *folds(ONE, 0), *folds(TWO, corpus="c0"))
    assert len(chapter.trials) == 2 and len(chapter.folds) == 10 and not chapter.remarks


def test_a_clock_that_goes_back_changes_nothing(tmp_path):
    def at(times):
        records = [network(ONE, 0), network(ONE, 1, corpus="c0"), network(ONE, 2, data_fingerprint="f01"), *folds(ONE)]
        stamped = [r.model_copy(update={"finished_at": t}) for r, t in zip(records, times, strict=False)]
        blank = {"finished_at": "", "measurements": {}}
        return [
            [r.model_copy(update=blank).identity for r in (*c.trials, *c.folds)]
            for c in of(tmp_path / times[0], *stamped, *records[len(times) :])
        ]

    assert at(["2026-01-01", "2026-01-02", "2026-01-03"]) == at(["2026-01-03", "2026-01-02", "2026-01-01"])


def test_folds_that_overlap_are_left_out(tmp_path):
    # Of the same time, so that nobody can tell which belong together.
    records = [*folds(ONE, 0)[1:], *divided_otherwise(2, 1, "2026-01-01T00:00:00+00:00")]
    (chapter,) = of(tmp_path / "beside", network(ONE), *records)
    assert "the folds of speech_commands have clips in common" in refused(written(tmp_path / "alone", *records).path)
    assert not chapter.folds
    assert chapter.remarks == ("6 records are left out: folds with clips in common, of several divisions of the data",)


def test_folds_that_could_be_of_several_sets_are_of_none(tmp_path):
    theirs = network(ONE, 1, test=heard(20, of="theirs"), data_fingerprint="f01")
    chapters = of(tmp_path, network(ONE), theirs, *folds(ONE))
    assert sorted((len(chapter.trials), len(chapter.folds)) for chapter in chapters) == [(0, 5), (1, 0), (1, 0)]
    # Of as many clips: told apart by a number.
    counts = "20 training, 20 validation and 20 test clips"
    assert {chapter.apart for chapter in chapters} == {counts, f"{counts}, set 2", "40 clips in folds"}


def test_the_same_results_of_another_machine_are_no_other_results(tmp_path):
    written(tmp_path / "a", network(ONE))
    elsewhere = ENVIRONMENT.model_copy(update={"device": "Some GPU"})
    written(tmp_path / "b", network(ONE, environment=elsewhere, finished_at="2026-02-01"))
    (chapter,) = gathered(tmp_path / "a", tmp_path / "b").chapters
    assert not chapter.remarks


def test_failures_stand_with_their_data(tmp_path):
    records = [network(ONE), network(ONE, train_clips=100, data_fingerprint="f01", finished_at="2026-02-01")]
    failures = [failure_record(3), failure_record(4, data_fingerprint="f01"), failure_record(5, data_fingerprint="?")]
    first, second = of(tmp_path, *records, *failures)
    # A failure of data that gave no record stands with the first chapter.
    of_other = [chapter for chapter in (first, second) if chapter.trials[0].train_clips == 100]
    assert {failure.seed for failure in of_other[0].failures} - {5} == {4}
    assert sorted(failure.seed for chapter in (first, second) for failure in chapter.failures) == [3, 4, 5]
    assert 5 in [failure.seed for failure in first.failures]


def test_a_timing_belongs_to_the_networks_that_train_on_as_many_clips(tmp_path):
    mine = [network(ONE, train_clips=100), timing_record(ONE, TWO, train_clips=100)]
    theirs = [
        network(ONE, dataset="synthetic", data_fingerprint="f01", train_clips=30),
        timing_record(ONE, train_clips=30),
    ]
    nobodys = [timing_record(ONE, train_clips=64), timing_record(TWO, train_clips=30)]
    first, second = of(tmp_path, *mine, *theirs, *nobodys)
    assert {first.dataset: first.timings, second.dataset: second.timings} == {
        "speech_commands": (mine[1],), "synthetic": (theirs[1],),
    }  # fmt: skip


def test_what_is_neither_is_noted(tmp_path, caplog):
    written(tmp_path, network(ONE))
    (tmp_path / "package.json").write_text('{"name": "foreign"}')
    (tmp_path / "notes.txt").write_text("not for us")
    assert len(load_report([tmp_path]).chapters) == 1
    (note,) = caplog.messages
    assert note.startswith("left out: ") and "package.json is no measurement file" in note and "\n" not in note


def refused(*paths):
    with pytest.raises(InputError) as error:
        load_report(paths)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_holds_no_records_is_refused(tmp_path):
    assert refused(tmp_path / "nowhere") == (
        f"there is no {tmp_path / 'nowhere'}: name a folder of records, as --out of a sweep made it"
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    assert refused(empty) == f"{empty} holds no records: name a folder that --out of a sweep made"
    (empty / "package.json").write_text("{}")
    assert "holds no records" in refused(empty)
    # Not even beside a folder that does.
    written(tmp_path / "runs", network(ONE))
    assert f"{empty} holds no records" in refused(tmp_path / "runs", empty)


def test_folders_near_by_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a message is cut where paths are long
    for name in "fdbeca":
        written(Path("study") / name, network(ONE), network(TWO))
    assert refused(Path("study")) == "study holds no records: name study/a study/b study/c study/d study/e"


def test_timings_alone_are_refused(tmp_path):
    folder = written(tmp_path, timing_record(ONE)).path
    assert "timing runs alone" in refused(folder) and "networks' records" in refused(folder)


def test_records_that_cannot_be_trusted_are_refused(tmp_path):
    record = network(ONE)
    path = written(tmp_path, record, network(TWO)).path / record.file_name
    whole = path.read_text()
    # A record is no measurement.
    assert f"{path} is no measurement file" in refused(path)
    for text, complaint in ((whole[:-100], "is not a whole melbench record"), (whole.replace("f00", "f0f"), "belongs")):
        path.write_text(text)
        assert str(path) in refused(tmp_path) and complaint in refused(tmp_path)


def test_a_timing_belongs_to_its_corpus(tmp_path):
    own, old = timing_record(ONE, corpus="c0"), timing_record(ONE)
    (chapter,) = of(tmp_path, network(ONE, corpus="c0"), own, old, timing_record(ONE, corpus="c1"))
    # A run of before, which names no corpus, may be of this one.
    assert {timing.corpus for timing in chapter.timings} == {"c0", ""}
