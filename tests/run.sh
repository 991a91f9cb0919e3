#!/usr/bin/env bash
# Sets up a virtual environment with everything that the tests need, and runs them all: lint, types, tests.
#
#   bash tests/run.sh [PYTEST ARGUMENTS]
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${HERE}/.venv-test"
PYTHON="${PYTHON:-python3}"
cd "${HERE}"

# Set up anew where a set-up before did not come to its end, or was for other requirements.
WANTED="$(cat setup.py tests/run.sh | cksum)"
if [[ ! -f "${VENV}/ready" || "$(cat "${VENV}/ready")" != "${WANTED}" ]]; then
    echo "setting up ${VENV} ..."
    rm -rf "${VENV}"
    "${PYTHON}" -m venv "${VENV}"
    # torch first and by this pin: whatever asks for torch later is content with it.
    "${VENV}/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0
    "${VENV}/bin/python" -m pip install --quiet --disable-pip-version-check -e ".[torch,test]"
    echo "${WANTED}" > "${VENV}/ready"
fi

"${VENV}/bin/ruff" check .
"${VENV}/bin/ruff" format --check .
"${VENV}/bin/mypy"
"${VENV}/bin/python" -m pytest -n "$(nproc)" "$@"
