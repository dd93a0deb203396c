import io
import os
import shutil
import tarfile

import numpy as np
import pytest
import soundfile
import torch

from melcnn import InputError, configure, extract, load_clips
from melcnn.data import recordings
from melcnn.data.clips import SPLITS
from melcnn.data.recordings import split_by_file, which_split
from melcnn.data.source import LISTS
from tests.conftest import write_corpus
from tests.helpers.configurations import plain


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


def test_noise_is_read_in_the_order_of_names_and_only_who_asks_for_it_is_another(copy, clips, tmp_path):
    folder = copy / "_background_noise_"
    folder.mkdir()
    for name, level in (("b.wav", 200), ("a.wav", 100), ("broken.wav", None)):
        soundfile.write(folder / name, np.full(20_000, level or 1, np.int16), 16_000)
    (folder / "broken.wav").write_bytes(b"RIFF")
    noisy = load_clips(copy)
    assert noisy.noise.tolist() == [100] * 20_000 + [200] * 20_000 and not noisy.left_out
    assert np.array_equal(load_clips(archive_of(copy, tmp_path / "a.tar")).noise, noisy.noise)
    assert len(clips.noise) == 0 and noisy.fingerprint == clips.fingerprint
    own, default = plain().training, configure(recipe="default").training
    without = [noisy.fingerprint_for(own), clips.fingerprint_for(own), clips.fingerprint_for(default)]
    assert without == [clips.fingerprint] * 3
    assert noisy.fingerprint_for(default) != clips.fingerprint
    # A rendition more than slower, faster and as it is, and the labels go round with them.
    for data, count in ((noisy, 4), (clips, 3)):
        features = extract(data, plain().front_end)
        x, labels = features.to_train(default)
        assert len(labels) == 48 and len(x) == count * 48
        assert torch.equal(x[:48], features.split("train")[0]) and features.to_train(default)[0] is x
        assert len(features.to_train(own)[0]) == 48


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


def test_without_lists_the_hash_rule_decides(copy, caplog):
    (copy / "testing_list.txt").unlink()
    clips = load_clips(copy, ("yes", "no"))
    assert clips.dataset == "recordings" and "hash rule" in caplog.messages[0]
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
        (wav(rate=44_101), "odd sample rate 44101 Hz"),
    ],
)
def test_a_bad_clip_is_named_and_left_out(copy, clips, content, reason, caplog):
    name = clips.names[0]
    (copy / name).write_bytes(content)
    for _ in range(2):  # decoded, and from the cache
        caplog.clear()
        fewer = load_clips(copy, ("yes", "no"))
        assert len(fewer) == len(clips) - 1 and name not in fewer.names
        assert caplog.messages == [f"left out 1 of 80 clips: {fewer.left_out[0]}"]
        assert name in caplog.messages[0] and reason in caplog.messages[0]


def test_a_word_whose_clips_of_a_split_are_all_bad(copy, clips):
    for name in clips.names[clips.split("test")][:8]:
        (copy / name).write_bytes(b"")
    with pytest.raises(InputError, match="no clip in the test split"):
        load_clips(copy)


def test_other_rates_channels_and_formats(tmp_path, caplog):
    """A folder of one's own: 8 kHz stereo ogg and mp3, no lists, names of one's own."""
    time = np.arange(2 * 8_000) / 8_000
    for word, pitch in (("hey", 500), ("stop", 1500)):
        (tmp_path / word).mkdir()
        tone = 0.3 * np.sin(2 * np.pi * pitch * time) * (time > 0.9)  # the word is in the last 1.1 s of two
        for i in range(20):
            ending = ("ogg", "mp3")[i % 2]
            soundfile.write(tmp_path / word / f"take {i}.{ending}", np.stack([tone, tone], 1), 8_000)
    clips = load_clips(tmp_path, ("hey", "stop"))
    assert (clips.resampled, clips.mixed_down, clips.dataset) == (40, 40, "recordings")
    assert len(caplog.messages) == 1 and "speakers of 40 of 40 clips are unknown" in caplog.messages[0]
    for waveform, label in zip(clips.waveforms, clips.labels, strict=True):
        spectrum = np.abs(np.fft.rfft(waveform))  # one second: bin = Hz
        assert abs(int(spectrum.argmax()) - (500, 1500)[label]) <= 1
        assert np.count_nonzero(np.abs(waveform) > 100) > 14_000, "the loudest second was taken"


def test_splits_by_file_are_stable():
    names = [f"hey/{i}.wav" for i in range(1000)]
    splits = split_by_file(names)
    counts = [list(splits.values()).count(s) for s in SPLITS]
    # 80, 10 and 10%: four standard deviations of a thousand draws are 51 and 38
    assert abs(counts[0] - 800) < 51 and abs(counts[1] - 100) < 38 and abs(counts[2] - 100) < 38
    # more files move none
    assert split_by_file(names[:300]).items() <= splits.items()
    # and a handful still fills every split
    assert sorted(split_by_file(["a", "b", "c"]).values()) == ["test", "train", "validation"]


def test_one_file_of_an_unknown_speaker_leaves_the_others_split_by_speaker(copy, clips, caplog):
    for name in ("validation_list.txt", "testing_list.txt"):
        (copy / name).unlink()
    shutil.copy(copy / clips.names[0], copy / "yes" / "extra take.wav")
    mixed = load_clips(copy, ("yes", "no"))
    assert len(mixed) == len(clips) + 1 and "speakers of 1 of 81 clips are unknown" in caplog.messages[-1]
    for name, split in zip(mixed.names, mixed.splits, strict=True):
        if name != "yes/extra take.wav":
            assert which_split(name) == SPLITS[split]


def test_names_with_spaces_stand_in_the_lists(copy, clips):
    old = str(clips.names[clips.split("test")][0])
    new = old.replace(".wav", " b.wav")
    (copy / old).rename(copy / new)
    text = (copy / "testing_list.txt").read_text()
    (copy / "testing_list.txt").write_text(text.replace(old, new))
    moved = load_clips(copy)
    assert new in moved.names[moved.split("test")]


def test_hidden_files_are_no_clips(copy, clips):
    """macOS leaves such a file beside each one in archives."""
    (copy / "yes" / "._00000000_nohash_0.wav").write_bytes(b"resource fork")
    assert load_clips(copy).fingerprint == clips.fingerprint


def test_names_that_are_not_utf8(copy, melbench):
    os.rename(copy / "yes" / os.listdir(copy / "yes")[0], os.fsencode(copy / "yes") + b"/caf\xe9_nohash_0.wav")
    code, _, err = melbench("data", "info", "--data", copy, "--words", "yes,no")
    assert code == 0, err
    assert "yes/caf\\xe9_nohash_0.wav" in load_clips(copy).names


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_every_compression_is_read(corpus, tmp_path, clips, mode):
    assert load_clips(archive_of(corpus, tmp_path / "a", mode)).fingerprint == clips.fingerprint


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive_that_is_damaged_anywhere_is_refused_or_gives_the_same_clips(corpus, tmp_path, clips, mode):
    small = tmp_path / "small"
    write_corpus(small, ("yes", "no"), {"train": 2, "validation": 1, "test": 1})
    whole = archive_of(small, tmp_path / "whole.tar", mode).read_bytes()
    expected = load_clips(tmp_path / "whole.tar").fingerprint
    rng, refused = np.random.default_rng(0), 0
    damages = [whole[: int(cut)] for cut in rng.integers(1, len(whole) - 1025, 12)]
    for at in rng.integers(0, len(whole), 40 if mode == "w:gz" else 0):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << int(rng.integers(8))
        damages.append(bytes(flipped))
    for damage in damages:
        (tmp_path / "damaged").write_bytes(damage)
        try:
            assert load_clips(tmp_path / "damaged").fingerprint == expected
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused >= 0.9 * len(damages)


def test_a_header_damaged_in_the_middle_of_a_tar_is_not_its_end(corpus, tmp_path):
    path = archive_of(corpus, tmp_path / "a.tar", "w")
    with tarfile.open(path) as archive:
        offset = archive.getmembers()[30].offset
    content = bytearray(path.read_bytes())
    content[offset] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged or ends too early"):
        load_clips(path)


def test_two_files_of_one_name_in_an_archive(corpus, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(corpus, "first")
        archive.add(corpus, "second")
    with pytest.raises(InputError, match="more than once"):
        load_clips(tmp_path / "a.tar")


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


def test_a_long_recording_keeps_its_second_and_not_its_minutes(tmp_path):
    (tmp_path / "yes").mkdir()
    soundfile.write(tmp_path / "yes" / "a.wav", np.full(160_000, 0.1), 16_000)
    clips = recordings.load(tmp_path, ("yes",))
    assert clips.lengths.tolist() == [160_000] and clips.waveforms.shape == (1, 16_000)


def test_more_noise_than_a_memory_should_hold(copy, monkeypatch):
    monkeypatch.setattr(recordings, "MAX_NOISE_SECONDS", 120)
    (copy / "_background_noise_").mkdir()
    for name, seconds in (("a.wav", 60), ("b.wav", 60)):
        soundfile.write(copy / "_background_noise_" / name, np.full(16_000 * seconds, 0.1), 16_000)
    assert len(load_clips(copy).noise) == 120 * 16_000
    soundfile.write(copy / "_background_noise_" / "c.wav", np.full(1, 0.1), 16_000)
    with pytest.raises(InputError, match="more than 2 minutes of background noise in _background_noise_: keep a part"):
        load_clips(copy)


@pytest.mark.parametrize(
    "written",
    [
        lambda names: "\r\n".join(names),
        lambda names: "\ufeff" + "\n".join(names),
        lambda names: "\n".join(f"./{name}" for name in names),
        lambda names: "\r\n".join(name.replace("/", "\\") for name in names) + "\r\n\r\n",
        lambda names: "\n".join(f"speech_commands_v0.02/{name} " for name in names),
        lambda names: "\n".join(f"C:\\data\\{name}".replace("/", "\\") for name in names),
    ],
)
def test_lists_are_read_however_they_were_written(copy, clips, written):
    for file in LISTS.values():
        (copy / file).write_bytes(written((copy / file).read_text().split()).encode())
    again = load_clips(copy)
    assert again.names.tolist() == clips.names.tolist() and again.splits.tolist() == clips.splits.tolist()


@pytest.mark.parametrize("line", ["{file}", "yes/other-{file}"])
def test_a_list_that_names_no_file_is_refused(copy, line):
    names = [name.split("/")[1] for name in (copy / "validation_list.txt").read_text().split()]
    (copy / "validation_list.txt").write_text("\n".join(line.format(file=name) for name in names))
    with pytest.raises(InputError, match=r"validation_list.txt: 0 of \d+ lines about yes,no name a file that is there"):
        load_clips(copy)


def test_a_part_of_a_data_set_has_lists_of_the_whole(copy, clips):
    # 49 lines of files that are elsewhere for each that is here: 2%.
    names = (copy / "validation_list.txt").read_text().split()
    missing = [f"yes/{number:08x}_nohash_9.wav" for number in range(49 * 16)]
    (copy / "validation_list.txt").write_text("\n".join([*names, *missing]))
    assert load_clips(copy).splits.tolist() == clips.splits.tolist()
    (copy / "validation_list.txt").write_text("\n".join([*names, *missing, "no/one_nohash_0.wav"]))
    with pytest.raises(InputError, match="16 of 801 lines"):
        load_clips(copy)
