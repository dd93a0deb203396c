"""The environment of a run, and the machine's state meanwhile. Reads the system and changes nothing."""
