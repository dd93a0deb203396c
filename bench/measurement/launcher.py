"""Measurements from several process launches: starts them one after another and gathers what they answer."""

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from bench.measurement.builders import facts
from bench.measurement.measurements import Launch, Measurement, Samples, calm_log_ratios
from bench.measurement.peaks import device_peaks
from bench.measurement.worker import LaunchAnswer, LaunchJob
from bench.measurement.workloads import Workload
from bench.stats.intervals import mean_interval
from bench.system.environment import Environment
from bench.timing import verdicts
from melcnn.errors import Failed, InputError
from melcnn.kernels import cuda, grouped_conv

# The folder that our packages are in.
HOME = str(Path(__file__).parents[2])

# A launch more costs seconds and a verdict UNCLEAR costs the whole measurement: up to twice the fewest are made
# until every work's mean is known this well, which is half of what a comparison wants to see.
PRECISION = verdicts.EFFECT / 2
MOST_LAUNCHES = 2


def measure(
    works: Sequence[Workload],
    device: str,
    launches: int,
    max_seconds: float | None,
    referenced: bool,
    env: Environment,
    progress: Callable[[str, str], None] = lambda stage, detail: None,
    keep: Callable[[Measurement], None] = lambda measurement: None,
    kernels: str | None = None,
) -> Measurement:
    """Time workloads in `launches` processes, each kind for at most `max_seconds` (see `LaunchJob`) in each.

    A launch that fails ends the measurement, which then says so in `stopped` and holds what was measured until then.

    Args:
        referenced: time them beside reference work, to be compared later. Launches are then added, up to twice as many,
            until every workload is known to ±1% relative to its reference by launches that other processes did not hold
            up (or these are too many).
        progress: called with each stage, and within it with a detail.
        keep: called with the measurement at the end, also if that is an interruption.
        kernels: the kernels that compute, "torch" or None for the faster.

    Raises:
        InputError, Failed: if nothing was measured.
    """
    progress("measuring what the device can do at best", "")
    top = device_peaks(env, device)
    computed = [facts(work, device, top) for work in works]
    done: list[Launch] = []
    by = kernels or grouped_conv.kernels(device)

    def so_far(stopped: str = "") -> Measurement:
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return Measurement(
            works=works,
            facts=computed,
            ceilings=top,
            launches=done,
            kernels=by,
            environment=env,
            finished_at=now,
            stopped=stopped,
        )

    most = launches * MOST_LAUNCHES if referenced else launches
    while True:
        number = len(done) + 1
        label = f"launch {number} of {launches if number <= launches else f'at most {most}'}"
        progress(label, "")
        job = LaunchJob(
            works=works,
            device=device,
            referenced=referenced,
            max_seconds=max_seconds,
            seed=number,
            kernels=kernels,
            precision=cuda.precision(),
        )
        try:
            launch, end = _launch(job, partial(progress, label))
        except KeyboardInterrupt:
            if done:
                keep(so_far("interrupted"))
            raise
        if launch:
            done.append(launch)
        if not done:
            raise (InputError if end.bad_input else Failed)(end.error)
        if end.error or len(done) == most or (len(done) >= launches and _enough(so_far(), most)):
            keep(so_far(end.error))
            return so_far(end.error)


def _enough(measurement: Measurement, most: int) -> bool:
    """Return whether every workload is known precisely, or other processes hold up so many launches that `most` of them
    would not bring a verdict either.
    """
    done = len(measurement.launches)
    calm = [calm_log_ratios(measurement.of(index)) for index in range(len(measurement.works))]
    if min(map(len, calm)) * most < verdicts.FEWEST_LAUNCHES * done:
        return True
    return all(map(_precise, calm))


def _precise(logs: Sequence[float]) -> bool:
    half = mean_interval(logs)[1]
    return len(logs) >= verdicts.FEWEST_LAUNCHES and half is not None and half <= PRECISION


def _launch(job: LaunchJob, progress: Callable[[str], None]) -> tuple[Launch | None, LaunchAnswer]:
    """Run one launch.

    Returns:
        the launch (None if it measured nothing), and its last answer, which says what cut it short if anything did.
    """
    samples: list[Samples | None] = [None] * len(job.works)
    before, end = None, None
    # What the process complains of goes into a file: a pipe that nobody empties would stop it.
    with tempfile.TemporaryFile("w+", errors="replace") as complaints:
        process = subprocess.Popen(
            # Not with -m, which would look for our modules in the user's folder first.
            [
                sys.executable,
                "-c",
                f"import sys; sys.path[0] = {HOME!r}; from bench.measurement.worker import main; main()",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            encoding="utf-8",
        )
        try:
            assert process.stdin and process.stdout
            with contextlib.suppress(BrokenPipeError), process.stdin:  # it may have died already
                process.stdin.write(job.model_dump_json())
            for line in process.stdout:
                answer = LaunchAnswer.model_validate_json(line)
                if answer.index is not None:
                    samples[answer.index] = answer.samples
                    progress(f"{sum(s is not None for s in samples)} of {len(samples)} timed")
                elif answer.before:
                    before = answer.before
                else:
                    end = answer
            process.wait()
        finally:
            process.kill()
            process.wait()
        complaints.seek(0)
        last = (complaints.read().strip().splitlines() or ["it did not say why"])[-1]
    if end is None:
        end = LaunchAnswer(after=before, error=f"a timing process ended with exit code {process.returncode}: {last}")
    if not any(samples):
        return None, end if end.error else end.model_copy(update={"error": "a timing process measured nothing"})
    return Launch(samples=samples, before=before, after=end.after), end
