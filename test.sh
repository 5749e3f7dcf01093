#!/usr/bin/env bash
# Make the environment if needed and run the tests; arguments go to pytest (./test.sh -m slow for the long ones).
set -euo pipefail
cd "$(dirname "$0")"
./install.sh requirements-dev.txt
exec .venv/bin/python -m pytest -n auto --maxprocesses 4 --dist worksteal "$@"
