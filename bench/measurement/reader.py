"""Reads measurements: files of `melbench time -o`, and JSON files of the benchmark suite, alone or in a folder."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.measurement.measurements import FORMAT_VERSION, Measurement
from melcnn.errors import InputError, first_problem
from melcnn.files import read_json

AGAIN = "make it again with 'melbench time -o FILE' or 'pytest bench --benchmark-only --benchmark-json FILE'"


def read(path: Path) -> Measurement:
    """Read the measurement in a file, or in the files of a folder, whose launches are put together.

    Raises:
        InputError: a file holds no measurement, contradicts itself, or does not belong to the others.
    """
    if not path.is_dir():
        return _read_file(path)
    files = sorted(path.glob("*.json"))
    if not files:
        raise InputError(f"the folder {path} holds no .json file: {AGAIN}")
    parts = [_read_file(file) for file in files]
    for file, part in zip(files, parts, strict=True):
        alike = [(one.works, one.environment, one.reference_version) for one in (part, parts[0])]
        if alike[0] != alike[1]:
            raise InputError(
                f"{file} is of other works, or of another machine or version, than {files[0]}: keep what belongs "
                "together in a folder of its own"
            )
    launches = [launch for part in parts for launch in part.launches]
    if len({launch.model_dump_json() for launch in launches}) < len(launches):
        raise InputError(f"{path} holds a launch twice, which would count as two: remove the copies")
    stopped = "; ".join(part.stopped for part in parts if part.stopped)
    return parts[0].model_copy(update={"launches": launches, "stopped": stopped})


def _read_file(path: Path) -> Measurement:
    try:
        content = read_json(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): name a measurement file") from None
    except ValueError as error:
        raise InputError(f"{path} is no whole measurement file ({error}): {AGAIN}") from None
    if of_suite := isinstance(content, dict) and "benchmarks" in content:
        try:
            content = to_measurement(content)
        except (KeyError, IndexError, TypeError, AttributeError):
            raise InputError(f"{path} holds no benchmarks of melbench's suite with their samples: {AGAIN}") from None
    if not isinstance(content, dict) or "works" not in content:
        raise InputError(f"{path} is no measurement file: {AGAIN}")
    if content.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{path} has measurement format {content.get('format_version')!r:.60}, and this melbench reads "
            f"{FORMAT_VERSION}: make it again, or use the melbench that wrote it"
        )
    try:
        measurement = Measurement.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path} is a damaged measurement file ({first_problem(error)}): {AGAIN}") from None
    if not measurement.launches:
        raise InputError(f"{path} holds no samples: {AGAIN}")
    if reason := _contradiction(measurement, of_suite):
        raise InputError(f"{path} contradicts itself ({reason}): {AGAIN}")
    return measurement


def _contradiction(measurement: Measurement, of_suite: bool) -> str:
    """Return why a measurement contradicts itself; empty if it does not."""
    for launch in measurement.launches:
        rounds: dict[tuple[str, int], int] = {}
        for work, one in zip(measurement.works, launch.samples, strict=True):
            if one is None:
                continue
            if one.calls < 1:
                return f"a sample of {one.calls} calls"
            if len(one.reference_seconds) != len(one.reference_waited):
                return "reference_seconds and reference_waited differ in number"
            # Works of one kind are timed side by side, but for the suite's.
            if rounds.setdefault((work.what, work.batch_size), len(one.seconds)) != len(one.seconds) and not of_suite:
                return "works of one kind that were timed side by side differ in number of rounds"
    return ""


KEY = "melbench"


def to_measurement(content: dict[str, Any]) -> dict[str, Any]:
    """Convert the JSON of pytest-benchmark to that of a measurement, still unchecked.

    Raises:
        KeyError, IndexError, TypeError, AttributeError: the file lacks our benchmarks or their samples.
    """
    here = content[KEY]
    named = here.get("benchmarks", {})
    # Older files have this in each benchmark's `extra_info`.
    extras = [named.get(one.get("fullname"), one["extra_info"].get(KEY)) for one in content["benchmarks"]]
    ours = [
        (one["stats"]["data"], extra)
        for one, extra in zip(content["benchmarks"], extras, strict=True)
        if extra is not None
    ]
    samples = [
        {
            "cold_seconds": data[0],
            "seconds": data,
            "waited": [0.0] * len(data),
            "reference_seconds": extra["reference_seconds"],
            "reference_waited": [0.0] * len(extra["reference_seconds"]),
        }
        for data, extra in ours
    ]
    return {
        "format_version": here["format_version"],
        "reference_version": here["reference_version"],
        "works": [extra["work"] for _, extra in ours],
        "facts": [extra["facts"] for _, extra in ours],
        "ceilings": here["ceilings"],
        "launches": [{"samples": samples, "before": here["before"], "after": here["after"]}],
        "kernels": here.get("kernels", "torch"),
        "environment": here["environment"],
        "finished_at": content["datetime"],
    }
