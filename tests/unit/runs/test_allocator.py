import platform
import subprocess
import sys

import pytest

SCRIPT = """
import psutil, torch
from loralab.runs.allocator import return_large_blocks
assert return_large_blocks()
for size in (30, 20, 10):
    torch.ones(size * 2**18)  # freeing it would raise glibc's own threshold to its size
before = psutil.Process().memory_info().rss
kept = []
for _ in range(20):
    block = torch.ones(2**18)
    kept.append(torch.ones(20))  # lies behind the block, so that a heap could not shrink
    del block
print(psutil.Process().memory_info().rss - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an option of glibc")
def test_freed_tensors_go_back_to_the_system():
    finished = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True)
    assert int(finished.stdout) < 2**20
