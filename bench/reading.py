"""Reads measurements: files of `melbench time -o`, and JSON files of the benchmark suite, alone or in a folder."""

import json
from pathlib import Path

from pydantic import ValidationError

from bench import suite_json
from bench.measurements import FORMAT_VERSION, Measurement
from melcnn.errors import InputError

AGAIN = "make it again with 'melbench time -o FILE' or 'pytest bench --benchmark-only --benchmark-json FILE'"


def read(path: Path) -> Measurement:
    """The measurement in a file, or in the files of a folder, whose launches are put together.

    Raises `InputError` for what holds no measurement, cannot be trusted, or does not belong together.
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
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): name a measurement file") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path} is no whole measurement file: {AGAIN}") from None
    if isinstance(content, dict) and "benchmarks" in content:
        try:
            content = suite_json.to_measurement(content)
        except (KeyError, IndexError, TypeError, AttributeError):
            raise InputError(f"{path} holds no benchmarks of melbench's suite with their samples: {AGAIN}") from None
    if not isinstance(content, dict) or "works" not in content:
        raise InputError(f"{path} is no measurement file: {AGAIN}")
    if content.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{path} has measurement format {content.get('format_version')!r}, and this melbench reads "
            f"{FORMAT_VERSION}: make it again, or use the melbench that wrote it"
        )
    try:
        measurement = Measurement.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{path} is a damaged measurement file ({where}: {first['msg']}): {AGAIN}") from None
    if not measurement.launches:
        raise InputError(f"{path} holds no samples: {AGAIN}")
    return measurement
