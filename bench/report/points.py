"""A point of a figure, as findings and breakdowns say it and drawings show it."""

from typing import Any

# By the names of its fields raw values: text, numbers, truth values or None. All points of a figure have equal fields.
Point = dict[str, Any]
