"""Clips from word folders: Speech Commands (arXiv:1804.03209) in its official layout, or a person's own recordings.

The layout: `word/speaker_nohash_k.wav`, and for Speech Commands `validation_list.txt`, `testing_list.txt`.
"""

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from melcnn.data.audio import SAMPLE_RATE, SAMPLES, BadAudio, Decoded, decode, loudest_stretch
from melcnn.data.clips import Clip, ClipSet, assemble
from melcnn.data.source import LISTS, NOISE, members
from melcnn.errors import InputError

# The data set's rule for a file's split: its hash in 0 to 100 %, the first 10 validation, the next 10 test.
MAX_NUM_WAVS_PER_CLASS = 2**27 - 1
VALIDATION_PERCENTAGE = 10
TESTING_PERCENTAGE = 10

# Background noise in all: Speech Commands has seven minutes. It is kept in memory as it is.
MAX_NOISE_SECONDS = 3600

# The least share of a split list's lines about some words that must name a file. A part of a data set has fewer files
# than its lists have lines.
LEAST_LISTED = 0.02

# File names of the data set: eight hexadecimal digits for the speaker, and a count.
SPEAKER_PATTERN = re.compile(r"([0-9a-f]{8})_nohash_\d+$")


def which_split(name: str) -> str:
    """Return the split of a file by the data set's published rule (in its README), a hash of the speaker.

    All files of a speaker are in one split, also when files are added later.
    """
    speaker = re.sub(r"_nohash_.*$", "", PurePosixPath(name).name)
    digest = int(hashlib.sha1(speaker.encode()).hexdigest(), 16)
    percentage = (digest % (MAX_NUM_WAVS_PER_CLASS + 1)) * (100.0 / MAX_NUM_WAVS_PER_CLASS)
    if percentage < VALIDATION_PERCENTAGE:
        return "validation"
    if percentage < VALIDATION_PERCENTAGE + TESTING_PERCENTAGE:
        return "test"
    return "train"


def split_by_file(names: Sequence[str]) -> dict[str, str]:
    """Return the splits of one word's files whose speakers are unknown, by a hash of each name.

    Files that are added later move none of them. In a small set, an empty validation or test split gets the file with
    the lowest hash.
    """
    splits = {name: which_split(name) for name in names}
    ordered = sorted(names, key=lambda name: hashlib.sha1(name.encode()).hexdigest())
    for split in ("validation", "test"):
        if split not in splits.values() and (spare := [n for n in ordered if splits[n] == "train"]):
            splits[spare[0]] = split
    return splits


def _listed(content: bytes) -> frozenset[str]:
    """Return the names `word/file` in a split list; ends of lines, a byte order mark, backslashes, `./` and folders
    before the word are not intended."""
    lines = content.decode("utf-8-sig", errors="replace").replace("\\", "/").splitlines()
    return frozenset("/".join(PurePosixPath(line.strip()).parts[-2:]) for line in lines if line.strip())


def _check_list(path: str, listed: frozenset[str], words: Sequence[str], present: Collection[str]) -> None:
    """Raise `InputError` if hardly any line of a list that could be about `words` names one of their files.

    Else clips of other splits would end up in training, unnoticed.
    """
    about = [name for name in listed if "/" not in name or name.split("/")[0] in words]
    named = sum(name in present for name in about)
    if named < LEAST_LISTED * len(about):
        example = min(name for name in about if name not in present)
        raise InputError(
            f"{path}: {named} of {len(about)} lines about {','.join(words)} name a file that is there, {example!r} "
            "does not: write word/file.wav in each line, as in yes/0a7c2a8d_nohash_0.wav, or remove both lists"
        )


def load(source: Path, words: tuple[str, ...]) -> ClipSet:
    """Load all clips of `words` in `source`, a folder or a tar archive of word folders.

    The two official lists decide the splits. Without both, the data set's hash rule decides by speaker; files whose
    names do not contain a speaker are split one by one, with a remark. Files that give no clip are named in `left_out`.

    Raises:
        InputError: as `members` does, and for more than an hour of noise.
    """
    decoded: dict[str, Decoded] = {}
    lengths: dict[str, int] = {}
    lists: dict[str, frozenset[str]] = {}
    left_out: list[str] = []
    noise: dict[str, Decoded] = {}
    for name, content in members(source, (*words, NOISE)):
        if name in LISTS.values():
            lists[name] = _listed(content)
            continue
        try:
            audio = decode(content)
        except BadAudio as error:
            if not name.startswith(f"{NOISE}/"):  # A noise file without audio is simply no noise.
                left_out.append(f"{name} {error}")
            continue
        if name.startswith(f"{NOISE}/"):
            noise[name] = audio
            if sum(len(each.waveform) for each in noise.values()) > MAX_NOISE_SECONDS * SAMPLE_RATE:
                raise InputError(
                    f"{source} holds more than {MAX_NOISE_SECONDS // 60} minutes of background noise in {NOISE}: keep "
                    "a part of it"
                )
        else:
            # A copy, because a view of one second would keep all of a long recording in memory.
            decoded[name] = replace(audio, waveform=loudest_stretch(audio.waveform).copy())
            lengths[name] = len(audio.waveform)
    remarks = []
    if left_out:
        more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
        remarks.append(
            f"left out {len(left_out)} of {len(decoded) + len(left_out)} clips: {'; '.join(left_out[:3])}{more}"
        )

    speakers = {name: match[1] for name in decoded if (match := SPEAKER_PATTERN.search(PurePosixPath(name).stem))}
    official = len(lists) == len(LISTS)
    if official:
        present = {*decoded, *(text.partition(" ")[0] for text in left_out)}
        for file, listed in lists.items():
            _check_list(f"{source}/{file}", listed, words, present)
        splits = {name: next((s for s, file in LISTS.items() if name in lists[file]), "train") for name in decoded}
    else:
        splits = {name: which_split(name) for name in speakers}
        unknown = [name for name in decoded if name not in speakers]
        for word in words:
            splits |= split_by_file([name for name in unknown if name.startswith(f"{word}/")])
        if speakers:
            remarks.append(f"without {' and '.join(LISTS.values())}, splits follow the data set's hash rule")
        if unknown:
            remarks.append(
                f"the speakers of {len(unknown)} of {len(decoded)} clips are unknown: these are split by file, and "
                "accuracy may flatter; name files like 0a1b2c3d_nohash_0.wav (eight hexadecimal digits for the speaker)"
            )
    clips = assemble(
        dataset="speech_commands" if official else "recordings",
        words=words,
        sample_rate=SAMPLE_RATE,
        samples=SAMPLES,
        clips=[
            Clip(
                name=name,
                word=name.split("/")[0],
                speaker=speakers.get(name, name),
                split=splits[name],
                waveform=audio.waveform,
                length=lengths[name],
            )
            for name, audio in decoded.items()
        ],
    )
    return replace(
        clips,
        noise=np.concatenate([np.zeros(0, np.int16), *(noise[name].waveform for name in sorted(noise))]),
        resampled=sum(audio.rate != SAMPLE_RATE for audio in decoded.values()),
        mixed_down=sum(audio.channels > 1 for audio in decoded.values()),
        left_out=tuple(left_out),
        remarks=tuple(remarks),
    )
