"""Every benchmark runs, on small sizes where it takes any, and prints its table."""

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SIZES = {
    "generator.py": "",
    "loader.py": "--device cpu",
    "lstm_step.py": "--device cpu --units 8 --batch_size 4 --seq_length 6 --rollout 2",
    "neighbours.py": "--network lstm --seconds 0.1",
    "sampling.py": "--device cpu",
    "vcae_step.py": "--device cpu --arch deep --batch_size 2",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [path.name for path in FOLDER.glob("*.py") if path.name != "compare.py"]
)
def test_it_prints_a_table(name):
    command = [sys.executable, FOLDER / name, "--rounds", "1", *SIZES[name].split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count(" ms ") >= 3
