"""The truth on disk: one file a trial, a failure or a timing run, in a folder that is locked while it is written."""
