"""Records in, tables and recommendations out. Runs nothing."""
