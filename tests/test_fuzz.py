import json
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent / "benchmarks" / "fuzz_files.py"


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and setrlimit")
def test_a_short_fuzzing_of_checkpoints_and_images_finds_nothing():
    done = subprocess.run(
        [sys.executable, FUZZ, "--minutes", "0.1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    for kind in ("programs", "checkpoints", "images"):
        assert sum(report[kind].values()) >= 200
