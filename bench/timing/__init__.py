"""Times callables: clocks, interleaved rounds, verdicts. Knows no model."""
