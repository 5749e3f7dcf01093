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

# In place of Python: it notes the command, and prints a table as evaluate.py does.
PYTHON = """#!/usr/bin/env bash
echo "$*" >> commands
echo "| predictor | MSE |"
echo "|---|---|"
echo "| runs/x/best.pt | 1 |"
"""


@pytest.mark.parametrize("quick", ["", "yes"])
@pytest.mark.parametrize("script", [*RECIPES, "demo.sh", "demo.sh movie"])
def test_commands(script, quick, tmp_path):
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    shutil.copy(ROOT / "demo.sh", tmp_path)
    for name, text in (
        ("install.sh", "#!/bin/sh\n"),
        (".venv/bin/python", PYTHON),
        ("bin/cp", "#!/bin/sh\n"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "QUICK": quick}
    command = ["bash", *script.split()]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert "| runs/x/best.pt | 1 |" in done.stdout

    left = set()
    for line in (tmp_path / "commands").read_text().splitlines():
        stage, *flags = line.split()
        flags = [
            str(ROOT / flag) if flag.startswith("data/big_buck_bunny/") else flag for flag in flags
        ]
        args = vars(importlib.import_module(stage.removesuffix(".py")).flags().parse_args(flags))
        run = args.get("save_to")
        read = [args.get(name) for name in ("data_file", "cae", "deconv", "lstm", "init_from")]
        models = args.get("model") or []
        read += [models] if isinstance(models, str) else models
        assert {path for path in read if path} <= left, line
        if run is None:
            left.add(args["dest"])
        left |= {f"{run}/{name}" for name in ("best.pt", "latents.hdf5", "lstm.pt")}
