"""Executors: threads, processes or Ray, behind one protocol."""
