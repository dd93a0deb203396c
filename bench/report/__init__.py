"""`melbench report`: records into one page, figures and curves. Runs nothing."""
