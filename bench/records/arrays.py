"""Types of record fields that hold thousands of values in little memory."""

import functools
from array import array
from collections.abc import Iterator, Sequence
from typing import Annotated, TypeVar

import numpy as np
from pydantic import AfterValidator, BeforeValidator, PlainSerializer

T = TypeVar("T")

# Lists that many records share, such as names and labels: enough for the splits and folds of several data sets.
MAX_SHARED = 128


class Rows:
    """Rows of equally many numbers: they read like a list of lists and are float32 in memory.

    Raises:
        ValueError: for rows of different lengths.
    """

    __slots__ = ("array",)

    def __init__(self, rows: Sequence[Sequence[float]]):
        if len({len(row) for row in rows}) > 1:
            raise ValueError("rows differ in length")
        with np.errstate(over="ignore"):  # Too large values become infinite, as they were when they were computed.
            self.array = np.array([list(row) for row in rows], np.float32).reshape(len(rows), -1 if len(rows) else 0)

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: int) -> list[float]:
        return self.array[index].tolist()

    def __iter__(self) -> Iterator[list[float]]:
        return iter(self.array.tolist())

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.array, dtype)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (Rows, list)):
            return NotImplemented
        return np.array_equal(self.array, (other if isinstance(other, Rows) else Rows(other)).array)

    def __repr__(self) -> str:
        return repr(self.array.tolist())


class Numbers(array):
    """Numbers that read like a list and take eight bytes each in memory."""

    def __new__(cls, values: Sequence[float]) -> "Numbers":
        return super().__new__(cls, "d", values)  # type: ignore[return-value]  # typeshed: array.__new__

    def __eq__(self, other: object) -> bool:
        return self.tolist() == (other.tolist() if isinstance(other, array) else other)

    def __reduce__(self) -> tuple:
        return Numbers, (self.tolist(),)

    def __repr__(self) -> str:
        return repr(self.tolist())


def _plain(value: object) -> object:
    """Return the field of another record as a list, which is checked like any other."""
    return list(value) if isinstance(value, (Rows, Numbers)) else value


def _shortest(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    # The fewest digits that give the same float32 again: half the size of the float64 text.
    return [[float(str(value)) for value in row] for row in np.asarray(rows, np.float32)]


def _once(values: list[T]) -> list[T]:
    return _shared(tuple(values))


@functools.lru_cache(maxsize=MAX_SHARED)
def _shared(values: tuple[T, ...]) -> list[T]:
    return list(values)


# Logits: float32 in memory, in JSON the fewest digits that give the same float32.
FloatRows = Annotated[list[list[float]], BeforeValidator(_plain), AfterValidator(Rows), PlainSerializer(_shortest)]
Floats = Annotated[list[float], BeforeValidator(_plain), AfterValidator(Numbers), PlainSerializer(list)]
# Not to be changed: other records hold the same list.
SharedStrings = Annotated[list[str], AfterValidator(_once)]
SharedIntegers = Annotated[list[int], AfterValidator(_once)]
