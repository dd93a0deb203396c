import json
from types import SimpleNamespace

import pytest

from bench.measurement import (
    builders,
    comparison,
    measurements,
    reader,
    reference,
    side_by_side,
    time_tables,
    workloads,
)
from bench.measurement.measurements import Launch, Measurement, Samples
from bench.measurement.peaks import Peaks
from bench.system import environment
from bench.system.monitor import Conditions
from melcnn.errors import InputError
from tests.helpers.configurations import plain
from tests.helpers.machines import FakeMachine

TOP = Peaks(flops_per_second=1e9, bytes_per_second={2**20: 1e9}, launch_seconds=1e-6)
CALM = Conditions(threads=2, affinity=[0, 1], load=0.1, cpu_mhz=3000.0)
WORKS = [work for groups in (1, 4) for work in workloads.of_trial(plain(groups=groups), ["latency"])]
FACTS = [builders.facts(work, "cpu", TOP) for work in WORKS]
ENV = environment.collect("cpu")


def measured(factors=(1.0, 1.0), launches=5, machine=1.0, of=WORKS, **changes):
    """Launches whose rounds take `machine` seconds, work i `factors[i]` times the reference, give or take 0.2%."""
    made = []
    for number in range(launches):
        samples = []
        for factor in factors[: len(of)]:
            beside = [machine * (1 + round / 10) for round in range(30)]
            seconds = [factor * (1 + (number - 2) / 1000) * t for t in beside]
            waited = [0.0] * 30
            samples.append(
                Samples(
                    cold_seconds=9.0,
                    seconds=seconds,
                    waited=waited,
                    reference_seconds=beside,
                    reference_waited=waited,
                    overhead_seconds=1e-7,
                )
            )
        made.append(Launch(samples=samples, before=CALM, after=CALM))
    base = Measurement(
        works=of, facts=FACTS[: len(of)], ceilings=TOP, launches=made, environment=ENV, finished_at="2026-01-01"
    )
    return base.model_copy(update=changes)


def test_a_machine_of_another_speed_cancels_out():
    # B's day is twice as slow; its second work takes 1.1 times as long for each second of reference work.
    found = comparison.stored(measured(), measured((1.0, 1.1), machine=2.0), 0.02)
    assert [one.label for one in found] == ["latency groups=1", "latency groups=4"]
    assert [one.comparison.verdict for one in found] == ["SAME", "SLOWER"]
    assert [one.comparison.ratio for one in found] == pytest.approx([1.0, 1.1])
    assert found[0].time_b == pytest.approx(2 * found[0].time_a)
    assert [one.comparison.verdict for one in comparison.stored(measured((1, 1.1)), measured(), 0.02)] == [
        "SAME",
        "FASTER",
    ]


def test_another_machine_is_refused_unless_asked_for():
    other = measured(environment=ENV.model_copy(update={"threads": ENV.threads + 1, "cpu": "Other"}))
    with pytest.raises(InputError, match=r"cpu: .* / Other; threads: \d+ / \d+\).*--across cpu,threads"):
        comparison.stored(measured(), other, 0.02)
    with pytest.raises(InputError, match=r"--across cpu,threads"):
        comparison.stored(measured(), other, 0.02, ["cpu"])
    assert len(comparison.stored(measured(), other, 0.02, ["cpu", "threads"])) == 2


def test_another_melbench_is_what_one_wants_to_know_of():
    newer = measured(environment=ENV.model_copy(update={"packages": ENV.packages | {"melbench": "99"}}))
    assert comparison.differences(measured(), newer) == {}
    torch = measured(environment=ENV.model_copy(update={"packages": ENV.packages | {"torch": "99"}}))
    assert list(comparison.differences(measured(), torch)) == ["torch"]


def test_different_work_is_refused():
    with pytest.raises(InputError, match=r"different work \(latency groups=1 ... / step groups=1 ...\)"):
        comparison.stored(measured(), measured(of=workloads.of_trial(plain(), ["step"])), 0.02)


def test_other_neighbours_and_few_launches_are_said():
    assert comparison.caveats(measured(), measured()) == []
    fewer = measured(of=WORKS[:1])
    assert len(comparison.stored(measured(), fewer, 0.02)) == 1
    assert "timed different works" in comparison.caveats(measured(), fewer)[0]
    short = measured(launches=3)
    assert comparison.stored(measured(), short, 0.02)[0].comparison.verdict == "UNCLEAR"
    assert "B has 3 launches and a verdict needs 5" in comparison.caveats(measured(), short)[0]
    held_up = measured()
    for launch in held_up.launches[:2]:
        launch.samples[0].waited[:6] = [0.5] * 6  # of 30 rounds
    (busy,) = comparison.caveats(measured(), held_up)
    assert "B: other processes held up 2 of 5 launches" in busy
    assert "A was stopped early: fire" in comparison.caveats(measured(stopped="fire"), measured())[0]


def test_launches_that_others_held_up_do_not_count():
    # B's first two launches stand at twice the time, in rounds of which six of thirty were disturbed.
    slowed = measured(launches=7)
    for launch in slowed.launches[:2]:
        one = launch.samples[0]
        one.waited[:6] = [0.5] * 6
        one.seconds[:] = [2 * t for t in one.seconds]
    calm = comparison.judge(measured().of(0), slowed.of(0))
    # Launches at 0, 1 ... 4 thousandths against -2 ... 2: a ratio of 1.002 and an interval of less than 0.5%.
    assert calm.verdict == "SAME" and calm.ratio == pytest.approx(1.002, abs=1e-4)
    # The times are of the launches that count: medians 2.45 (1 + k / 1000), for A k is -2 ... 2, for B 0 ... 4.
    (shown, _) = comparison.stored(measured(), slowed, 0.02)
    assert (shown.time_a, shown.time_b) == pytest.approx((2.45, 2.45 * 1.002))
    # Without two more launches four are left, and the ratio is of all.
    few = comparison.judge(measured().of(0), slowed.of(0)[:6])
    assert few.verdict == "UNCLEAR" and few.ratio > 1.2


def test_without_reference_work_nothing_is_compared():
    plain = measured()
    bare = [
        launch.model_copy(update={"samples": [s.model_copy(update={"reference_seconds": []}) for s in launch.samples]})
        for launch in plain.launches
    ]
    with pytest.raises(InputError, match="without reference work"):
        comparison.stored(plain, plain.model_copy(update={"launches": bare}), 0.02)
    old = plain.model_copy(update={"reference_version": reference.VERSION + 1})
    with pytest.raises(InputError, match="reference work of versions"):
        comparison.stored(plain, old, 0.02)


def test_side_by_side_sees_an_injected_slowdown():
    (work,) = workloads.of_trial(plain(groups=16, batch_size=16), ["latency"])
    slowed = work.model_copy(update={"slowdown": 0.5})
    found, run = side_by_side.side_by_side(work, slowed, "cpu", 0.02, max_seconds=20)
    assert found.comparison.verdict == "SLOWER" and 1.3 < found.comparison.ratio < 1.8
    lengths = {name: len(one.seconds) for name, one in run.series.items()}
    assert set(lengths) == {f"{side}{number}" for side in "AB" for number in range(side_by_side.PAIRS)}
    assert min(lengths.values()) == max(lengths.values()) >= side_by_side.FEWEST_ROUNDS


def test_neither_side_is_favoured_by_where_it_lies(monkeypatch):
    # Whatever is built takes 1% less than what was built before it: in half of the pairs A is built first.
    machine, made = FakeMachine(), []

    def build(work, device, kernels=None):
        made.append(work.slowdown)
        return SimpleNamespace(call=machine.work(len(made), 0.99 ** len(made)))

    monkeypatch.setattr(builders, "build", build)
    monkeypatch.setattr(side_by_side, "clock_for", lambda device: machine.clock)
    (work,) = workloads.of_trial(plain(), ["latency"])
    slowed = work.model_copy(update={"slowdown": 0.5})
    orders = []
    for seed in range(3):
        made.clear()
        found, _ = side_by_side.side_by_side(work, slowed, "cpu", 0.02, max_seconds=1000, seed=seed)
        assert found.comparison.ratio == pytest.approx(1.0, abs=1e-4) and found.comparison.verdict == "SAME"
        pairs = list(zip(made[::2], made[1::2], strict=True))
        assert pairs.count((0.0, 0.5)) == pairs.count((0.5, 0.0)) == side_by_side.PAIRS // 2
        orders.append(pairs)
    assert orders[0] != orders[1] != orders[2]


def test_the_table_of_times():
    first, second = time_tables.rows(measured())
    # Medians of a launch: 2.45 x (1 + k / 1000) for k in -2 ... 2; their mean is 2.45 and their t interval
    # 2.776 x 2.45e-3 x sqrt(2.5) / sqrt(5).
    assert first.time_s == pytest.approx(2.45) and first.time_ci95_s == pytest.approx(
        2.776 * 2.45e-3 * 0.5**0.5, rel=1e-3
    )
    assert (first.what, first.groups, first.clips, first.launches, first.samples) == ("latency", 1, 1, 5, 150)
    assert (first.params, first.macs, second.macs) == (18_850, 1_010_432, 255_872)
    assert first.clips_per_s == pytest.approx(1 / 2.45, rel=1e-4)
    assert first.times_floor == pytest.approx(first.time_s / first.floor_time_s, rel=1e-4)
    assert first.timer_overhead == pytest.approx(1e-7 / 0.998)
    # The second takes 1.1 times as long in every round of every launch.
    _, slower = time_tables.rows(measured((1.0, 1.1)))
    assert (slower.time_ratio, slower.time_ratio_ci95) == pytest.approx((1.1, 0.0), abs=1e-6)
    assert (first.time_ratio, first.time_ratio_ci95) == (1.0, None)
    assert first.device_time_s is None and first.energy_j is None
    sheet = time_tables.times(measured())
    assert "device time" not in sheet.headings and "bound by" in sheet.headings
    measures_time = {name for name in sheet.records[0] if name.endswith("_s")} - {"clips_per_s"}
    assert all("time" in name for name in measures_time)


def test_what_a_gpu_knows_has_columns_of_its_own():
    base = measured()
    on_gpu = [
        launch.model_copy(
            update={
                "samples": [
                    s.model_copy(
                        update={"device_seconds": s.seconds, "busy_seconds": 0.5, "energy_joules": 3.0, "peak_bytes": 8}
                    )
                    for s in launch.samples
                ]
            }
        )
        for launch in base.launches
    ]
    sheet = time_tables.times(base.model_copy(update={"launches": on_gpu}))
    assert {"device time", "busy", "energy", "peak memory"} <= set(sheet.headings)
    assert sheet.records[0]["bound_by"] == "launch overhead"  # busy for 0.5 of 2.45 s


def with_shares(*launches):
    """A measurement whose launches say of the first work where its time goes, and nothing of the second."""
    base = measured(launches=len(launches))
    told = [
        launch.model_copy(update={"samples": [launch.samples[0].model_copy(update={"shares": s}), launch.samples[1]]})
        for launch, s in zip(base.launches, launches, strict=True)
    ]
    return base.model_copy(update={"launches": told})


def test_where_the_time_goes_has_columns():
    # Means over the launches that tell: of 0.3 and 0.5, of 0.2 and 0, of 0.5 and 0.3, and of 0 and 0.15 + 0.05.
    told = {"convolution": 0.3, "fused block": 0.2, "Python and launching": 0.5}
    other = {"convolution": 0.5, "Python and launching": 0.3, "pooling": 0.15, "rest": 0.05}
    first, second = time_tables.rows(with_shares(told, other, {}))
    split = [
        first.convolution_time_share,
        first.fused_block_time_share,
        first.other_operators_time_share,
        first.python_time_share,
    ]
    assert split == pytest.approx([0.4, 0.1, 0.1, 0.4])
    assert second.convolution_time_share is second.python_time_share is None
    # They follow all earlier ones: older files' columns keep their places.
    assert list(first.model_dump())[-5:-1] == [name for name in first.model_dump() if name.endswith("_time_share")]


def test_older_files_do_not_tell_where_the_time_goes(tmp_path):
    path = tmp_path / "m.json"
    measurements.write_measurement(with_shares(*[{"convolution": 1.0}] * 5), path)
    content = json.loads(path.read_text())
    assert [row.convolution_time_share for row in time_tables.rows(reader.read(path))] == [1.0, None]
    for one in (one for launch in content["launches"] for one in launch["samples"]):
        del one["shares"]
    path.write_text(json.dumps(content))
    assert [row.convolution_time_share for row in time_tables.rows(reader.read(path))] == [None, None]


def test_remarks_are_made_once_with_the_works_and_launches_that_call_for_them():
    # Rounds of 1.0, 1.1 ... 3.9: the medians of their thirds are 1.45 and 3.45.
    assert time_tables.remarks(measured()) == [
        "drifting: the last third took +138% against the first: let the machine settle "
        "(latency groups=1 and 1 more, 5 of 5 launches)"
    ]
    assert time_tables.remarks(measured(stopped="fire"))[0] == "stopped early: fire"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "no whole measurement file"),
        ('{"format_version": 1', "no whole measurement file"),
        ("[1, 2]", "no measurement file"),
        ('{"some": "json"}', "no measurement file"),
        ('{"machine_info": {}, "benchmarks": []}', "no benchmarks of melbench's suite"),
    ],
)
def test_files_that_hold_no_measurement(tmp_path, content, complaint):
    path = tmp_path / "m.json"
    path.write_text(content)
    with pytest.raises(InputError, match=complaint) as error:
        reader.read(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_damaged_and_foreign_measurements(tmp_path):
    path = tmp_path / "m.json"
    measurements.write_measurement(measured(), path)
    assert reader.read(path).model_dump_json() == measured().model_dump_json()
    whole = json.loads(path.read_text())

    def complaint(change):
        content = json.loads(json.dumps(whole))
        change(content)
        path.write_text(json.dumps(content))
        with pytest.raises(InputError) as error:
            reader.read(path)
        return str(error.value)

    assert "has measurement format 99" in complaint(lambda c: c.update(format_version=99))
    assert "holds no samples" in complaint(lambda c: c.update(launches=[]))
    assert "damaged measurement file (works" in complaint(lambda c: c.update(works=[]))
    assert "damaged" in complaint(lambda c: c["launches"][0]["samples"].pop())
    assert "damaged" in complaint(lambda c: c["launches"][0]["samples"][0]["waited"].pop())
    assert "a time is not positive" in complaint(lambda c: c["launches"][0]["samples"][0]["seconds"].__setitem__(0, 0))
    assert "shares do not sum to 1" in complaint(lambda c: c["launches"][0]["samples"][0].update(shares={"rest": 0.9}))
    assert "damaged" in complaint(lambda c: c.update(surprise=1))
    assert "damaged" in complaint(lambda c: c["launches"][0]["samples"][0]["seconds"].__setitem__(0, float("nan")))
    with pytest.raises(InputError, match="cannot be read"):
        reader.read(tmp_path / "nowhere.json")


def test_a_folder_is_its_files_launches(tmp_path):
    for number in range(3):
        measurements.write_measurement(measured(launches=2, machine=1.0 + number), tmp_path / f"{number}.json")
    assert len(reader.read(tmp_path).launches) == 6
    measurements.write_measurement(measured(launches=2), tmp_path / "copy.json")
    with pytest.raises(InputError, match="holds a launch twice"):
        reader.read(tmp_path)
    (tmp_path / "copy.json").unlink()
    measurements.write_measurement(measured(launches=2, of=WORKS[:1]), tmp_path / "other.json")
    with pytest.raises(InputError, match="other.json is of other works"):
        reader.read(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no .json file"):
        reader.read(tmp_path / "empty")


BY_ROUND = ("seconds", "waited", "reference_seconds", "reference_waited")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda sample: sample.update(calls=0), "contradicts itself .a sample of 0 calls"),
        (lambda sample: sample.update(reference_waited=[]), "reference_seconds and reference_waited differ in number"),
        (
            lambda sample: [sample[name].pop() for name in BY_ROUND],
            "works of one kind that were timed side by side differ in number of rounds",
        ),
        (lambda sample: sample.update({"x" * 999: 1}), "damaged measurement file .launches.0.samples.0.x+: Extra"),
    ],
)
def test_measurements_that_contradict_themselves(tmp_path, change, says):
    path = tmp_path / "m.json"
    measurements.write_measurement(measured(), path)
    content = json.loads(path.read_text())
    change(content["launches"][0]["samples"][0])
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=says):
        reader.read(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            '{"works": [], "format_version": "' + "1" * 9999 + '"}',
            "has measurement format '1{59}, and this melbench reads",
        ),
        ('{"format_version": 1, "format_version": 1}', "no whole measurement file .an object with a key twice"),
        ("[" * 100_000, "no whole measurement file .nested too deeply"),
    ],
)
def test_files_that_hold_what_no_measurement_does(tmp_path, content, says):
    (tmp_path / "m.json").write_text(content)
    with pytest.raises(InputError, match=says):
        reader.read(tmp_path / "m.json")


def test_there_is_no_floor_of_a_busy_machine():
    busy = measured()
    busy = busy.model_copy(update={"ceilings": busy.ceilings.model_copy(update={"disturbed": True})})
    (row, *_) = time_tables.rows(busy)
    assert (row.floor_time_s, row.times_floor, row.bound_by) == (None, None, "")
    sheet = time_tables.times(busy)
    assert not {"floor", "x floor", "bound by"} & set(sheet.headings) and [
        note for note in sheet.notes if note.startswith("No floor: ")
    ]
