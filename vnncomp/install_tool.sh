#!/usr/bin/env bash
# VNN-COMP: install the tool once. Usage: install_tool.sh v1
# Makes .venv beside this folder, with the pinned versions. PYTHON names the interpreter (3.11 or newer; default python3).
set -euo pipefail

if [[ "${1:-}" != v1 ]]; then
    echo "install_tool.sh: the first argument must be the version v1, got '${1:-}'" >&2
    exit 1
fi
root=$(dirname "$(dirname "$(realpath "$0")")")
"${PYTHON:-python3}" -m venv "$root/.venv"
"$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$root/constraints/cpu.txt" -e "$root[onnx,lp]"
"$root/.venv/bin/boundlab" --version
