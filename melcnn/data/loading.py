"""From what a person names, `auto`, `synthetic` or a path, to a clip set; decoded clips are cached by content."""

from collections.abc import Callable, Sequence
from pathlib import Path

from melcnn.config import check_words
from melcnn.data import prepared, recordings, synthetic
from melcnn.data.clips import ClipSet, cached
from melcnn.data.source import NOISE, content_hash

Note = Callable[[str], None]


def load_clips(
    source: str | Path = "auto",
    words: Sequence[str] = ("yes", "no"),
    note: Note = lambda text: None,
    every_split: bool = True,
) -> ClipSet:
    """All clips of `words` from `source`.

    source: "synthetic" (made here, needs no download), a folder or tar archive of word folders, or "auto":
    Speech Commands if `prepare` has run before, else synthetic. note: receives one-line notices. every_split:
    each word must have clips for training, validation and test.

    Raises `InputError`: source missing, unreadable or without such words, fewer than two words, a word
    with no clip in a split.
    """
    words = tuple(words)
    check_words(words)
    if source == "auto":
        folder = prepared.folder()
        if folder.is_dir():
            note(f"data: Speech Commands, prepared in {folder}")
            prepared.check_words(words)
            source = folder
        else:
            note("data: synthetic, no real speech; 'melbench data prepare' gets Speech Commands (2.4 GB)")
            source = "synthetic"
    if source == "synthetic":
        clips = cached(f"synthetic {synthetic.VERSION}\n{words}", lambda: synthetic.synthesize(words), note)
    else:
        path = Path(source)
        clips = cached(
            f"recordings\n{words}\n{content_hash(path, (*words, NOISE))}", lambda: recordings.load(path, words), note
        )
    for remark in clips.remarks:
        note(remark)
    if every_split:
        clips.check_splits()
    return clips
