import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

STRESS = Path(__file__).parent.parent / "benchmarks" / "kill_stress.py"


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_killed_at_ten_instants_and_at_each_point_of_a_save_a_run_loses_nothing():
    done = subprocess.run(
        [sys.executable, STRESS, "--instants", "10", "--first-point", "20", "--points", "20"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["instants"] == 10
    assert report["write_points"] == 20
    assert report["killed_inside_a_write"] >= 10
    assert report["equals_a_run_never_killed"]
