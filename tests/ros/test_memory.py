"""The C library's handling of large buffers."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

CODE = """
import resource
from mobilevlm_ros.ros.memory import keep_picture_buffers
assert keep_picture_buffers()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    bytearray(2_764_800)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_the_memory_of_one_picture_is_used_for_the_next() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=True)
    one_picture = 2_764_800 // 4096
    assert int(done.stdout) < 3 * one_picture
