"""Recipes and demo: the commands that they run have flags that their stages take, in an order that
can work.
"""

import importlib
import shutil
import subprocess

import pytest
from conftest import ROOT

RECIPES = [
    f"recipes/{path.name}" for path in sorted(ROOT.glob("recipes/*.sh")) if path.name != "stage.sh"
]

PACKAGED = ("data/big_buck_bunny/", "data/gestures/")

# In place of Python: it notes the command, and prints tables as evaluate.py does.
PYTHON = """#!/usr/bin/env bash
echo "$*" >> commands
[ "$1" = evaluate.py ] || exit 0
echo "| predictor | MSE |"
echo "|---|---|"
echo "| black | 2 |"
echo "| runs/x/best.pt | 1 |"
echo
echo "| film | windows | runs/x/best.pt |"
echo "|---|---|---|"
echo "| test/a.mp4 | 3 | 1 |"
"""
COPY = """#!/usr/bin/env bash
echo "$*" >> copied
"""


@pytest.mark.parametrize("quick", ["", "yes"])
@pytest.mark.parametrize("script", [*RECIPES, "demo.sh", "demo.sh movie", "demo.sh quick"])
def test_commands(script, quick, tmp_path):
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    shutil.copy(ROOT / "demo.sh", tmp_path)
    for name, text in (
        ("install.sh", "#!/bin/sh\n"),
        (".venv/bin/python", PYTHON),
        ("bin/cp", COPY),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "QUICK": quick}
    command = ["bash", *script.split()]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    if script != "demo.sh quick":  # which measures nothing
        assert "| runs/x/best.pt | 1 |" in done.stdout
        assert "| test/a.mp4 | 3 | 1 |" in done.stdout
    if script in RECIPES:
        assert "| black | 2 |" not in done.stdout
    if (tmp_path / "copied").exists():
        words = (tmp_path / "copied").read_text().split()
        packaged = [word for word in words if word.startswith(PACKAGED)]
        assert [path for path in packaged if not (ROOT / path).is_file()] == []
    commands = (tmp_path / "commands").read_text()
    assert not quick or "fetch" not in commands  # what is quick needs no network

    left = set()
    for line in commands.splitlines():
        stage, *flags = line.removeprefix("-m ").split()
        flags = [str(ROOT / flag) if flag.startswith(PACKAGED) else flag for flag in flags]
        args = vars(importlib.import_module(stage.removesuffix(".py")).flags().parse_args(flags))
        run = args.get("save_to")
        read = [args.get(name) for name in ("data_file", "cae", "deconv", "lstm", "init_from")]
        models = args.get("model") or []
        read += [models] if isinstance(models, str) else models
        if args.get("film"):
            read.append(args["film"])
        packaged = {path for path in read if path and (ROOT / path).is_file()}
        assert {path for path in read if path} - packaged <= left, line
        if run is None:
            left.add(args["dest"])
        left |= {f"{run}/{name}" for name in ("best.pt", "latents.hdf5", "lstm.pt")}
