import os
import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))
# Programs that tests and benchmarks share.
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

# Machines differ in speed, answers must not: no deadline, and in CI the same examples each time.
settings.register_profile("default", deadline=None, max_examples=50)
settings.register_profile("ci", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")
