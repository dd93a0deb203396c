"""Trials to records: plans stacks of seeds, trains what is missing, times epochs."""
