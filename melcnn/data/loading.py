"""Loading of clips from `auto`, `synthetic` or a path; decoded clips are cached by content."""

import logging
from collections.abc import Sequence
from pathlib import Path

from melcnn.config import check_words, words_of
from melcnn.data import prepared, recordings, synthetic
from melcnn.data.clips import ClipSet, cached
from melcnn.data.source import NOISE, content_hash

log = logging.getLogger(__name__)


def load_clips(
    source: str | Path = "auto",
    words: Sequence[str] = ("yes", "no"),
    every_split: bool = True,
) -> ClipSet:
    """Load all clips of `words` and log the remarks on them.

    Args:
        source: "synthetic" (made here, needs no download), a folder or tar archive of word folders, or "auto": Speech
            Commands if `melcnn.data.prepared.prepare` has run, else synthetic.
        every_split: each word must have clips for training, validation and test.

    Raises:
        InputError: if the source is missing, unreadable or lacks a word, there are fewer than two words, or a word has
            no clip in a split.
    """
    words = words_of(words)
    check_words(words)
    if source == "auto":
        folder = prepared.folder()
        if folder.is_dir():
            log.info(f"data: Speech Commands, prepared in {folder}")
            prepared.check_words(words)
            source = folder
        else:
            log.info("data: synthetic, no real speech; 'melbench data prepare' gets Speech Commands (2.4 GB)")
            source = "synthetic"
    if source == "synthetic":
        clips = cached(f"synthetic {synthetic.VERSION}\n{words}", lambda: synthetic.synthesize(words))
    else:
        path = Path(source)
        clips = cached(
            f"recordings\n{words}\n{content_hash(path, (*words, NOISE))}", lambda: recordings.load(path, words)
        )
    for remark in clips.remarks:
        log.warning(remark)
    if every_split:
        clips.check_splits()
    return clips
