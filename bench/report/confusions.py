"""Words that networks confuse, and clips that they get wrong."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from bench.formats import Point, Sheet
from bench.records import Predictions

# Of the clips that networks get wrong, as many as a person listens to.
MOST_WRONG = 20


def confusion(said: Sequence[Predictions], words: Sequence[str]) -> list[Point]:
    """Return how often each word is predicted as each, by all networks together."""
    if not said:
        return []
    spoken = np.concatenate([one.labels for one in said])
    predicted = np.concatenate([np.argmax(one.logits, axis=1) for one in said])
    counts = np.zeros((len(words), len(words)), int)
    np.add.at(counts, (spoken, predicted), 1)
    return [
        {
            "spoken": words[i],
            "predicted": words[j],
            "times": int(counts[i, j]),
            "share": _share(counts[i, j], counts[i]),
        }
        for i in range(len(words))
        for j in range(len(words))
    ]


def _share(part: int, whole: np.ndarray) -> float | None:
    return round(float(part / whole.sum()), 6) if whole.sum() else None


def most_wrong(said: Sequence[Predictions], words: Sequence[str], which: str) -> Sheet | None:
    """Return the clips that most networks get wrong, with speaker and most frequent answer; None without networks.

    Args:
        said: predictions of the same clips.
        which: the name of these clips.
    """
    if not said:
        return None
    first = said[0]
    predicted = np.stack([np.argmax(one.logits, axis=1) for one in said])
    wrong = (predicted != np.array(first.labels)).sum(0)
    worst = [i for i in np.argsort(-wrong, kind="stable")[:MOST_WRONG] if wrong[i]]
    lines = [
        {
            "clip": first.names[i],
            "speaker": first.speakers[i],
            "spoken": words[first.labels[i]],
            "predicted": words[
                Counter(h for h in predicted[:, i].tolist() if h != first.labels[i]).most_common(1)[0][0]
            ],
            "wrong": int(wrong[i]),
            "networks": len(said),
        }
        for i in worst
    ]
    right = int((wrong == 0).sum())
    return Sheet(
        title=f"{which} that are most often wrong",
        headings=["clip", "speaker", "spoken", "predicted", "networks wrong"],
        cells=[[*(line[n] for n in ("clip", "speaker", "spoken", "predicted")), str(line["wrong"])] for line in lines],
        records=lines,
        notes=[f"{len(said)} networks each; {right} of {len(wrong)} {which} are recognised by all of them."],
    )
