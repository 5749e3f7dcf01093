"""Which Python runs the stages: one that has what requirements.txt asks for, or else .venv's."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from conftest import ROOT
from packaging.requirements import Requirement

import moving_mnist
from runtime import cli, requirements


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """A function that replaces requirements.txt by the lines given."""

    def write(*lines):
        path = tmp_path / "requirements.txt"
        path.write_text("\n".join(lines))
        monkeypatch.setattr(requirements, "FILE", path)

    return write


def test_this_python_meets_them():
    assert list(requirements.unmet()) == []


def test_what_is_too_old_or_missing_is_unmet(asked):
    asked("# packages", "torch>=1.0", "numpy>=99", "no-such-package>=1")
    found = {requirement.name: version for requirement, version in requirements.unmet()}
    assert list(found) == ["numpy", "no-such-package"]
    assert found["numpy"] is not None
    assert found["no-such-package"] is None


def test_a_stage_refuses_what_is_too_old(asked, tmp_path, capsys):
    asked("torch>=99")
    dest = tmp_path / "new.hdf5"
    with pytest.raises(SystemExit) as left:
        cli.run(moving_mnist.main, moving_mnist.flags(), ["--dest", str(dest)])
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "torch>=99 is needed" in line
    assert "pip install -r requirements.txt" in line
    assert not dest.exists()


def test_a_stage_does_without_what_it_does_not_import(asked):
    asked("no-such-package>=1")
    requirements.check_versions()


def test_locked_versions_are_allowed():
    allowed = {}
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if not line.startswith("#"):
            requirement = Requirement(line)
            allowed[requirement.name] = requirement.specifier
    locked = {}
    for line in (ROOT / "requirements-lock.txt").read_text().splitlines():
        if not line.startswith(("#", "-r")):
            requirement = Requirement(line)
            (pin,) = requirement.specifier
            assert pin.operator == "=="
            locked[requirement.name] = pin.version
    assert allowed.keys() <= locked.keys()
    for name, specifier in allowed.items():
        assert locked[name] in specifier, name


@pytest.fixture
def place(tmp_path):
    """A folder with what chooses a Python, and an install.sh that leaves a file."""
    for folder in ("recipes", "runtime"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "requirements.txt", tmp_path)
    (tmp_path / "install.sh").write_text("#!/bin/sh\ntouch installed\n")
    (tmp_path / "install.sh").chmod(0o755)
    return tmp_path


def choose(place, python, **environment):
    """Source stage.sh with the folder of `python` first on the path. Returns (chosen, said)."""
    left_out = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH")
    inherited = {name: value for name, value in os.environ.items() if name not in left_out}
    inherited["PATH"] = f"{python.parent}:{os.environ['PATH']}"
    command = ["bash", "-euo", "pipefail", "-c", "source recipes/stage.sh; echo $python"]
    done = subprocess.run(
        command, cwd=place, env=inherited | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip(), done.stderr


def test_a_python_that_has_all_is_used(place):
    python = Path(sys.executable)
    chosen, said = choose(place, python, VIRTUAL_ENV=str(python.parent.parent))
    assert chosen == "python3"
    assert said == ""
    assert not (place / "installed").exists()


def test_what_it_lacks_is_named(place):
    (place / "requirements.txt").write_text("torch>=99\nno-such-package>=1\n")
    chosen, said = choose(place, Path(sys.executable), CONDA_PREFIX="/opt/conda")
    assert chosen == ".venv/bin/python"
    (line,) = said.splitlines()
    assert "torch>=99 (has " in line
    assert "no-such-package>=1 (has none)" in line


@pytest.mark.parametrize("active", [True, False])
def test_a_python_that_lacks_something_is_not(active, place):
    venv.create(place / "bare", symlinks=True)
    variables = {"VIRTUAL_ENV": str(place / "bare")} if active else {}
    chosen, said = choose(place, place / "bare" / "bin" / "python3", **variables)
    assert chosen == ".venv/bin/python"
    assert (place / "installed").exists()
    if active:
        (line,) = said.splitlines()
        assert "packaging" in line  # the first that it lacks
    else:
        assert said == ""
