#!/usr/bin/env bash
# Pack what `python -m bench.studies.gpu` needs on a machine that has a GPU, torch and Python 3.12, but no network.
#
#     bench/studies/gpu_carry.sh SPEECH_COMMANDS FOLDER
#
# SPEECH_COMMANDS is an unpacked archive. FOLDER gets the wheels of what such machines lack, and speech.tar: the words
# yes and no, the split lists and two of the six noises, each clip losslessly as FLAC under its own name, so that
# waveforms and their fingerprint stay the same; recipes with noise see less of it. Together they must fit in 64 MiB. On
# the machine:
#
#     python3 -m pip install --no-index --no-deps --target SITE FOLDER/wheels/*.whl
#     PYTHONPATH=SITE:. python3 -m bench.studies.gpu OUT FOLDER/speech.tar
set -euo pipefail
[ $# = 2 ] || { echo "usage: $0 SPEECH_COMMANDS FOLDER" >&2; exit 2; }
[ -d "$1/yes" ] && [ -d "$1/no" ] || { echo "$1 has no folders yes and no: name an unpacked Speech Commands" >&2; exit 2; }
mkdir -p "$2/wheels"
rm -f "$2"/wheels/*.whl

# The versions that are installed here: pydantic needs the very pydantic-core of its release.
packages=$(python3 - <<'PYTHON'
from importlib.metadata import version
names = "pydantic pydantic-core annotated-types typing-inspection typing-extensions soundfile cffi pycparser platformdirs filelock"
print(*(f"{name}=={version(name)}" for name in names.split()))
PYTHON
)
# shellcheck disable=SC2086  # one argument a package
python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
    -d "$2/wheels" $packages

python3 - "$1" "$2/speech.tar" <<'PYTHON'
import io
import sys
import tarfile
from pathlib import Path

import soundfile

source = Path(sys.argv[1])
noises = [source / "_background_noise_" / f"{name}.wav" for name in ("pink_noise", "running_tap")]
with tarfile.open(sys.argv[2], "w") as archive:
    for path in sorted([*source.glob("yes/*.wav"), *source.glob("no/*.wav"), *noises, *source.glob("*.txt")]):
        content = path.read_bytes()
        if path.suffix == ".wav":
            samples, rate = soundfile.read(path, dtype="int16")
            packed = io.BytesIO()
            soundfile.write(packed, samples, rate, format="FLAC", subtype="PCM_16")
            content = packed.getvalue()
        entry = tarfile.TarInfo(str(path.relative_to(source)))
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
PYTHON

size=$(du -sm "$2" | cut -f1)
echo "$2 holds $(ls "$2"/wheels/*.whl | wc -l) wheels and speech.tar: $size MiB"
[ "$size" -le 60 ] || { echo "that is too much to carry (60 MiB at most)" >&2; exit 1; }
