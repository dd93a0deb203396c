import shutil
import tarfile

import numpy as np
import pytest
import soundfile

from melcnn import InputError, load_clips
from melcnn.data import speech_commands
from melcnn.data.speech_commands import which_split


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
    monkeypatch.setattr(speech_commands, "_decode", None)
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
    with pytest.raises(InputError, match="no clip in the"):
        # The rule splits these speakers otherwise than the lists did; with enough of them it would do.
        shutil.rmtree(copy / "yes")
        (copy / "yes").mkdir()
        shutil.copy(next((copy / "no").iterdir()), copy / "yes" / "aa_nohash_0.wav")
        load_clips(copy, ("yes", "no"), notes.append)
    assert "testing_list.txt" in notes[0] and "hash rule" in notes[0]


def test_the_hash_rule_gives_the_official_lists(speech):
    if not speech.is_dir():
        pytest.skip("needs a folder")
    for split, file in speech_commands.LISTS.items():
        names = (speech / file).read_text().split()
        assert len(names) > 9000 and {which_split(name) for name in names} == {split}
    train = {p.relative_to(speech).as_posix() for p in speech.glob("[a-z]*/*.wav")}
    train -= {name for file in speech_commands.LISTS.values() for name in (speech / file).read_text().split()}
    assert len(train) > 1000 and {which_split(name) for name in train} == {"train"}


def test_the_real_test_split_is_complete(speech):
    clips = load_clips(speech)
    counts = np.bincount(clips.labels[clips.split("test")])
    assert counts.tolist() == [419, 405]
    speakers = [set(clips.speakers[clips.split(s)]) for s in ("train", "validation", "test")]
    assert not (speakers[0] & speakers[1] or speakers[0] & speakers[2] or speakers[1] & speakers[2])


def damage(copy, content):
    path = sorted((copy / "yes").iterdir())[0]
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        samples, rate, channels = content
        soundfile.write(path, np.ones((samples, channels)) * 0.1, rate, subtype="PCM_16", format="WAV")


@pytest.mark.parametrize(
    "content, message",
    [
        (b"no audio at all", "is no audio"),
        (b"", "is no audio"),
        ((0, 16_000, 1), "is empty"),
        ((8_000, 8_000, 1), "8000 Hz"),
        ((16_000, 16_000, 2), "2 channel"),
    ],
)
def test_a_bad_clip_is_named(copy, content, message):
    damage(copy, content)
    with pytest.raises(InputError, match=f"yes/.*{message}"):
        load_clips(copy)


def test_sources_that_cannot_be(corpus, tmp_path):
    cut = archive_of(corpus, tmp_path / "cut.tar.gz")
    cut.write_bytes(cut.read_bytes()[:100_000])
    (tmp_path / "text.tar.gz").write_text("no archive")
    (tmp_path / "empty").mkdir()
    for source, words, message in [
        (tmp_path / "nowhere", ("yes", "no"), "does not exist"),
        (tmp_path / "empty", ("yes", "no"), "no word/"),
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
