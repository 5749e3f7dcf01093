#!/usr/bin/env bash
# Make .venv and install a requirements file into it, unless that was done already: ./install.sh [FILE]
set -euo pipefail
cd "$(dirname "$0")"
file=${1:-requirements-lock.txt}
stamp=.venv/installed-$(cat requirements*.txt | cksum | cut -d' ' -f1)-$file
[ -e "$stamp" ] && exit 0
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or newer is needed" >&2; exit 2; }
.venv/bin/python -m pip --version >/dev/null 2>&1 || python3 -m venv --clear .venv
echo "Installing $file into .venv" >&2
.venv/bin/python -m pip install --quiet -r "$file"
touch "$stamp"
