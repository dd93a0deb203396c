"""`melbench profile`: parameters, multiply-accumulates and bytes of any model, beside what other counters say."""
