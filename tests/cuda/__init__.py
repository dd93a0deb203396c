"""Checks on a device: `pytest tests/cuda`, or `python -m bench.studies.gpu` with all else that is measured there."""

from melcnn import configure

TRIALS = {recipe: configure(recipe=recipe, groups=4) for recipe in ("plain", "default")}
