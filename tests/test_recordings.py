import io
import shutil
import tarfile

import numpy as np
import pytest
import soundfile

from melcnn import InputError, load_clips
from melcnn.data import recordings
from melcnn.data.clips import SPLITS
from melcnn.data.recordings import split_by_file, which_split
from melcnn.data.source import LISTS


@pytest.fixture
def copy(corpus, tmp_path):
    return shutil.copytree(corpus, tmp_path / "copy")


def archive_of(folder, path, mode="w:gz", prefix="."):
    with tarfile.open(path, mode) as archive:
        archive.add(folder, prefix)
    return path


def test_a_folder_and_an_archive_give_the_same_clips(corpus, tmp_path, clips):
    for number, (mode, prefix) in enumerate([("w:gz", "."), ("w", "speech_commands_v0.02")]):
        archived = load_clips(archive_of(corpus, tmp_path / f"{number}.tar", mode, prefix))
        assert archived.fingerprint == clips.fingerprint
    assert clips.dataset == "speech_commands" and clips.sample_rate == 16_000
    assert clips.waveforms.shape == (80, 16_000) and clips.waveforms.dtype == np.int16


def test_waveforms_are_the_files_and_speakers_the_names(corpus, clips):
    for i in (0, 20, 79):
        wave, _ = soundfile.read(corpus / clips.names[i], dtype="int16")
        assert np.array_equal(clips.waveforms[i, : len(wave)], wave) and not clips.waveforms[i, len(wave) :].any()
        assert clips.speakers[i] == clips.names[i].split("/")[1].split("_nohash_")[0]


def test_the_second_load_decodes_nothing(corpus, clips, monkeypatch):
    monkeypatch.setattr(recordings, "decode", None)
    assert load_clips(corpus).fingerprint == clips.fingerprint


def test_a_changed_file_is_noticed(copy, clips):
    name = clips.names[0]
    soundfile.write(copy / name, np.zeros(16_000), 16_000, subtype="PCM_16")
    assert load_clips(copy).fingerprint != clips.fingerprint


def test_any_words_in_any_number(corpus):
    clips = load_clips(corpus, ("go", "yes", "no"))
    assert clips.words == ("go", "yes", "no") and set(clips.labels) == {0, 1, 2}
    assert all(clips.names[i].startswith(clips.words[clips.labels[i]]) for i in range(len(clips)))


def test_without_lists_the_hash_rule_decides(copy):
    (copy / "testing_list.txt").unlink()
    notes = []
    clips = load_clips(copy, ("yes", "no"), notes.append)
    assert clips.dataset == "recordings" and "hash rule" in notes[0]
    for name, split in zip(clips.names, clips.splits, strict=True):
        assert which_split(name) == SPLITS[split]
    speakers = [set(clips.speakers[clips.split(s)]) for s in SPLITS]
    assert not (speakers[0] & speakers[1] or speakers[0] & speakers[2] or speakers[1] & speakers[2])


def test_the_hash_rule_gives_the_official_lists(speech):
    if not speech.is_dir():
        pytest.skip("needs a folder")
    for split, file in LISTS.items():
        names = (speech / file).read_text().split()
        assert len(names) > 9000 and {which_split(name) for name in names} == {split}
    train = {p.relative_to(speech).as_posix() for p in speech.glob("[a-z]*/*.wav")}
    train -= {name for file in LISTS.values() for name in (speech / file).read_text().split()}
    assert len(train) > 1000 and {which_split(name) for name in train} == {"train"}


def test_the_real_test_split_is_complete(speech):
    clips = load_clips(speech)
    counts = np.bincount(clips.labels[clips.split("test")])
    assert counts.tolist() == [419, 405]
    speakers = [set(clips.speakers[clips.split(s)]) for s in ("train", "validation", "test")]
    assert not (speakers[0] & speakers[1] or speakers[0] & speakers[2] or speakers[1] & speakers[2])


def wav(samples=16_000, rate=16_000, channels=1, value=0.1):
    out = io.BytesIO()
    soundfile.write(out, np.full((samples, channels), value), rate, subtype="PCM_16", format="WAV")
    return out.getvalue()


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"no audio at all", "is no audio that can be read"),
        (b"", "is no audio that can be read"),
        (wav(samples=0), "is empty"),
        (wav()[:20_000], "is cut short"),
        (wav(value=0.0), "is all zeros"),
        (wav(samples=601 * 8000, rate=8000), "longer than 600 s"),
    ],
)
def test_a_bad_clip_is_named_and_left_out(copy, clips, content, reason):
    name = clips.names[0]
    (copy / name).write_bytes(content)
    for _ in range(2):  # decoded, and from the cache
        notes = []
        fewer = load_clips(copy, ("yes", "no"), notes.append)
        assert len(fewer) == len(clips) - 1 and name not in fewer.names
        assert notes == [f"left out 1 of 80 clips: {fewer.left_out[0]}"]
        assert name in notes[0] and reason in notes[0]


def test_a_word_whose_clips_of_a_split_are_all_bad(copy, clips):
    for name in clips.names[clips.split("test")][:8]:
        (copy / name).write_bytes(b"")
    with pytest.raises(InputError, match="no clip in the test split"):
        load_clips(copy)


def test_other_rates_channels_and_formats(tmp_path):
    """A folder of one's own: 8 kHz stereo ogg and mp3, no lists, names of one's own."""
    time = np.arange(2 * 8_000) / 8_000
    for word, pitch in (("hey", 500), ("stop", 1500)):
        (tmp_path / word).mkdir()
        tone = 0.3 * np.sin(2 * np.pi * pitch * time) * (time > 0.9)  # the word is in the last 1.1 s of two
        for i in range(20):
            ending = ("ogg", "mp3")[i % 2]
            soundfile.write(tmp_path / word / f"take {i}.{ending}", np.stack([tone, tone], 1), 8_000)
    notes = []
    clips = load_clips(tmp_path, ("hey", "stop"), notes.append)
    assert (clips.resampled, clips.mixed_down, clips.dataset) == (40, 40, "recordings")
    assert len(notes) == 1 and "speakers are unknown" in notes[0]
    # A tenth, 2 of 20, of each word for validation and for test.
    assert [len(clips.labels[clips.split(s)]) for s in SPLITS] == [32, 4, 4]
    for waveform, label in zip(clips.waveforms, clips.labels, strict=True):
        spectrum = np.abs(np.fft.rfft(waveform))  # one second: bin = Hz
        assert abs(int(spectrum.argmax()) - (500, 1500)[label]) <= 1
        assert np.count_nonzero(np.abs(waveform) > 100) > 14_000, "the loudest second was taken"


def test_splits_by_file():
    names = [f"hey/{i}.wav" for i in range(25)]
    splits = split_by_file(names)
    assert splits == split_by_file(names[::-1]) and sorted(splits) == sorted(names)
    counts = [list(splits.values()).count(s) for s in SPLITS]
    assert counts == [21, 2, 2]
    assert sorted(split_by_file(["a", "b", "c"]).values()) == ["test", "train", "validation"]


def member(archive, name, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    archive.addfile(info)


@pytest.mark.parametrize(
    "name, kind, link",
    [
        ("../evil.wav", tarfile.REGTYPE, ""),
        ("/etc/evil.wav", tarfile.REGTYPE, ""),
        ("yes/evil.wav", tarfile.SYMTYPE, "../../outside.wav"),
        ("yes/evil.wav", tarfile.LNKTYPE, "/etc/passwd"),
    ],
)
def test_an_archive_with_members_that_point_outside(corpus, tmp_path, name, kind, link):
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(corpus, ".")
        member(archive, name, kind, link)
    with pytest.raises(InputError, match="points outside") as caught:
        load_clips(path)
    assert "\n" not in str(caught.value)


def test_sources_that_cannot_be(corpus, tmp_path):
    cut = archive_of(corpus, tmp_path / "cut.tar.gz")
    cut.write_bytes(cut.read_bytes()[:100_000])
    (tmp_path / "text.tar.gz").write_text("no archive")
    (tmp_path / "empty").mkdir()
    for source, words, message in [
        (tmp_path / "nowhere", ("yes", "no"), "does not exist"),
        (tmp_path / "empty", ("yes", "no"), "no word folder"),
        (cut, ("yes", "no"), "cannot be read"),
        (tmp_path / "text.tar.gz", ("yes", "no"), "cannot be read"),
        (corpus, ("yes", "maybe"), "'maybe' is not in .* go, no, stop, yes"),
        (corpus, ("yes",), "one word alone"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            load_clips(source, words)
        assert "\n" not in str(caught.value)


def test_a_word_with_no_clip_in_a_split(copy):
    (copy / "testing_list.txt").write_text("")
    with pytest.raises(InputError, match="no clip in the test split"):
        load_clips(copy)
