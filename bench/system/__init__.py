"""What ran where, and what the machine was doing meanwhile. Reads the system and changes nothing."""
