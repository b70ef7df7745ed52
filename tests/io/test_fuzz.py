"""The short version of ``make fuzz``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_a_thousand_files(tmp_path):
    """Claim: whatever is in a file, it is read or refused; nothing crashes, hangs or swells."""
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, str(here / "fuzz.py"), "--cases", "1000"], capture_output=True, text=True,
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
