"""The harness: sweeps, records, counting, timing, statistics and tables around `melcnn`."""
