#!/usr/bin/env bash
# Sets up a virtual environment, turns the bundled dialogues into a dataset, and shows the first one with its
# mask in colour. Needs Python 3.10 or later with pip; downloads packages through pip and nothing else.
#
#   bash examples/quickstart.sh [FOLDER]      FOLDER: where the dataset goes (default: ./output)
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
OUTPUT="${1:-${PWD}/output}"
VENV="${HERE}/.venv"
PYTHON="${PYTHON:-python3}"

if [[ ! -x "${VENV}/bin/mtsft" ]]; then
    echo "setting up ${VENV} ..."
    "${PYTHON}" -m venv "${VENV}"
    "${VENV}/bin/python" -m pip install --quiet --disable-pip-version-check -e "${HERE}"
fi

"${VENV}/bin/python" "${HERE}/preprocess_data.py" \
    --input "${HERE}/examples/data/alpaca_history.parquet" \
    --tokenizer-name-or-path "${HERE}/examples/tokenizer/" \
    --output-prefix "${OUTPUT}/alpaca" \
    --workers 2 --log-interval 1000 --tokenizer-type PretrainedFromHF \
    --handler-name AlpacaStyleInstructionHandler --prompt-type gemma \
    --map-keys '{"history":"histories","system":"system"}' \
    --overwrite

# In colour on a terminal; FORCE_COLOR=1 for a pipe.
"${VENV}/bin/mtsft" show "${OUTPUT}/alpaca" --item 0
