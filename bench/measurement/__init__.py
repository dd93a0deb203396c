"""`melbench time` and `melbench compare`: workloads timed in several processes, kept in files, compared."""
