#!/usr/bin/env bash
# Alpaca with history for Gemma 2, as scripts for MindSpeed-LLM have it: set the four variables and run.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
INPUT="${INPUT:-${HERE}/data/alpaca_history.parquet}"         # ./dataset/train-00000-of-00001.parquet
TOKENIZER="${TOKENIZER:-${HERE}/tokenizer/}"                  # ./model_from_hf/gemma2_hf/
OUTPUT_PREFIX="${OUTPUT_PREFIX:-./finetune_dataset/alpaca}"
WORKERS="${WORKERS:-4}"

python "${HERE}/../preprocess_data.py" \
    --input "${INPUT}" \
    --tokenizer-name-or-path "${TOKENIZER}" \
    --output-prefix "${OUTPUT_PREFIX}" \
    --workers "${WORKERS}" \
    --log-interval 1000 \
    --tokenizer-type PretrainedFromHF \
    --handler-name AlpacaStyleInstructionHandler \
    --prompt-type gemma \
    --map-keys '{"history":"histories"}' \
    "$@"
