"""What is set before PyTorch is imported: how its libraries use memory and threads."""

import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

FIRST = "import runtime.environment"
LATER = r"^(?:import|from) (?:numpy|torch|compare|data|evaluation|models|training)\b"
SHOW = "import os, runtime.environment; print(os.environ.get('GOMP_SPINCOUNT'))"


def python(code, **environment):
    """What a new Python prints that runs `code`; environment: what its user has set."""
    names = ("GOMP_", "OMP_WAIT", "MALLOC_", "GLIBC_")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, env=plain | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    "path", [*ROOT.glob("*.py"), *ROOT.glob("benchmarks/*.py")], ids=lambda path: path.name
)
def test_scripts_import_it_first(path):
    text = path.read_text()
    if path.name != "compare.py":  # which the benchmarks import
        assert text.index(FIRST) < re.search(LATER, text, re.MULTILINE).start()


def test_what_the_user_has_set_stays():
    assert python(SHOW) != ["None"]
    assert python(SHOW, GOMP_SPINCOUNT="7") == ["7"]
    assert python(SHOW, OMP_WAIT_POLICY="active") == ["None"]
