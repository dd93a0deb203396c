"""Where jobs run: threads, processes or Ray, behind one protocol."""
