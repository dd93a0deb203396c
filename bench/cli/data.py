"""The commands about data sets: `melbench data prepare` and `melbench data info`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options
from bench.cli.output import deliver
from bench.cli.terminal import chosen_format, resumable, split_words, stderr
from melcnn.errors import InputError

data_app = typer.Typer(no_args_is_help=True, help="Get real speech ready, or see what a data set holds.")


@data_app.command()
def prepare(
    data: options.Data = "auto",
    words: options.Words = "yes,no",
    format: options.Format = "table",
    json: options.Json = False,
) -> None:
    """Get Speech Commands ready, once, for --data auto; downloads 2.4 GB unless --data names a copy.

    Example:

      melbench data prepare --words yes,no,go,stop
    """
    format = chosen_format(format, json)
    from bench.cli.progress import DownloadProgress
    from melcnn.config import check_words
    from melcnn.data import prepared
    from melcnn.data.loading import load_clips

    wanted = split_words(words)
    check_words(tuple(wanted))
    if data == "synthetic":
        load_clips("synthetic", wanted)
    else:
        with (
            resumable("what was downloaded is kept, and the same command goes on"),
            DownloadProgress(stderr) as on_progress,
        ):
            prepared.prepare(None if data == "auto" else Path(data), wanted, on_progress)
        data = "auto"
    _show_contents(data, wanted, format)


@data_app.command()
def info(
    data: options.Data = "auto",
    words: Annotated[
        str | None, typer.Option("--words", help="The words to look at; unless given, the words that there are.")
    ] = None,
    format: options.Format = "table",
    json: options.Json = False,
) -> None:
    """Show what a data set holds by word and split, and what looks broken in it.

    Example:

      melbench data info --data my_recordings

      melbench data info --data my_recordings --words hey,stop
    """
    format = chosen_format(format, json)
    if words is not None:
        _show_contents(data, split_words(words), format)
        return
    from bench.cli import listings
    from melcnn.data import prepared
    from melcnn.data.source import word_counts

    if data == "synthetic" or (data == "auto" and not prepared.folder().is_dir()):
        raise InputError("synthetic speech has any word that you name: give --words, such as --words yes,no")
    folder = prepared.folder() if data == "auto" else Path(data)
    deliver([listings.words(word_counts(folder), str(folder))], format)


def _show_contents(data: str, words: Sequence[str], format: str) -> None:
    from bench.cli import listings
    from melcnn.data.loading import load_clips

    deliver(listings.contents(load_clips(data, words, every_split=False)), format, main="clips")
