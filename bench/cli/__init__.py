"""The command `melbench`: parses, calls, renders."""

from bench.cli.app import main as main
