"""Triton's interpreter, and convolutions that fill no tile of its kernels."""

import os
import subprocess
import sys

import pytest

# clips, channels in and out of a group, length, taps, stride, padding, dilation, groups
CONVOLUTIONS = [
    (3, 5, 2, 33, 3, 1, 1, 1, 4),
    (2, 1, 1, 140, 3, 1, 1, 1, 6),
    (2, 18, 3, 20, 4, 2, 3, 1, 2),
    (1, 2, 18, 31, 2, 3, 0, 2, 1),
    (34, 2, 2, 5, 1, 1, 0, 1, 1),
    # Groups of 16 channels and more: matrix products, with pairs, channels and positions that fill no tile.
    (3, 17, 20, 21, 3, 2, 1, 1, 2),
    (2, 18, 35, 70, 5, 1, 4, 2, 1),
]


def interpret(code: str) -> None:
    """Run code in a process whose Triton kernels run on the CPU; skips the test without Triton."""
    pytest.importorskip("triton")
    env = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
