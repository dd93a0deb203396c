"""Intervals and decisions from numbers alone: numpy and scipy, no records and no networks."""
