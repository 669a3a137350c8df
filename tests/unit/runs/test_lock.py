import subprocess
import sys
from pathlib import Path

import pytest

from loralab.errors import ConfigError
from loralab.runs.folder import RunFolder
from loralab.runs.lock import hold, is_held

HOLD = """
import sys, time
from pathlib import Path
from loralab.runs.folder import RunFolder
from loralab.runs.lock import hold
with hold(RunFolder(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_run_is_trained_by_one_process_and_free_when_it_is_killed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert not is_held(run)
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert is_held(run)
        with pytest.raises(ConfigError, match="is being trained by another process"), hold(run):
            pass
        process.kill()
    assert not is_held(run)
    with hold(run):
        assert is_held(run)
