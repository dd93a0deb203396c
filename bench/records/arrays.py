"""Lists of thousands of records in little memory: numbers in four bytes, and what many records repeat held once."""

import functools
from array import array
from collections.abc import Iterator, Sequence
from typing import Annotated, TypeVar

import numpy as np
from pydantic import AfterValidator, BeforeValidator, PlainSerializer

T = TypeVar("T")

# Lists that many records share: of names, speakers and labels of some data sets' splits and folds.
SHARED = 128


class Rows:
    """Rows of equally many numbers, as a list of lists to whoever reads it, and float32 in memory.

    Raises `ValueError` for rows of different lengths.
    """

    __slots__ = ("array",)

    def __init__(self, rows: Sequence[Sequence[float]]):
        if len({len(row) for row in rows}) > 1:
            raise ValueError("rows differ in length")
        with np.errstate(over="ignore"):  # What is too large is infinite, as it was when it was computed.
            self.array = np.array([list(row) for row in rows], np.float32).reshape(len(rows), -1 if len(rows) else 0)

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: int) -> list[float]:
        return self.array[index].tolist()

    def __iter__(self) -> Iterator[list[float]]:
        return iter(self.array.tolist())

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.array, dtype)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (Rows, list)):
            return NotImplemented
        return np.array_equal(self.array, (other if isinstance(other, Rows) else Rows(other)).array)

    def __repr__(self) -> str:
        return repr(self.array.tolist())


class Numbers(array):
    """Numbers, as a list to whoever reads it, and in memory eight bytes each."""

    def __new__(cls, values: Sequence[float]) -> "Numbers":
        return super().__new__(cls, "d", values)

    def __eq__(self, other: object) -> bool:
        return self.tolist() == (other.tolist() if isinstance(other, array) else other)

    def __reduce__(self) -> tuple:
        return Numbers, (self.tolist(),)

    def __repr__(self) -> str:
        return repr(self.tolist())


def _plain(value: object) -> object:
    """What another record holds, as a list, to be checked like any."""
    return list(value) if isinstance(value, (Rows, Numbers)) else value


def _shortest(rows: Sequence[Sequence[float]]) -> list[list[float]]:
    # The fewest digits that give the same float32 again: half the size of the float64 text.
    return [[float(str(value)) for value in row] for row in np.asarray(rows, np.float32)]


def _once(values: list[T]) -> list[T]:
    return _shared(tuple(values))


@functools.lru_cache(maxsize=SHARED)
def _shared(values: tuple[T, ...]) -> list[T]:
    return list(values)


# Types of fields. Of rows a number has the digits of a float32, in JSON the fewest that tell it.
FloatRows = Annotated[list[list[float]], BeforeValidator(_plain), AfterValidator(Rows), PlainSerializer(_shortest)]
Floats = Annotated[list[float], BeforeValidator(_plain), AfterValidator(Numbers), PlainSerializer(list)]
# Not to be changed: others hold it too.
SharedStrings = Annotated[list[str], AfterValidator(_once)]
SharedIntegers = Annotated[list[int], AfterValidator(_once)]
