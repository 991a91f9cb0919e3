#!/usr/bin/env bash
# Alpaca with history for Qwen2.5.
# --map-keys names the columns of system text and history; the others have Alpaca's own names.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
INPUT="${INPUT:-${HERE}/data/alpaca_history.json}"            # ./dataset/alpaca_gpt4_data.json
TOKENIZER="${TOKENIZER:-${HERE}/tokenizer/}"                  # ./model_from_hf/qwen2.5_hf/
OUTPUT_PREFIX="${OUTPUT_PREFIX:-./finetune_dataset/qwen2.5_alpaca}"
WORKERS="${WORKERS:-4}"
SEQ_LENGTH="${SEQ_LENGTH:-4096}"                              # longer dialogues are rejected, and counted

python "${HERE}/../preprocess_data.py" \
    --input "${INPUT}" \
    --tokenizer-name-or-path "${TOKENIZER}" \
    --output-prefix "${OUTPUT_PREFIX}" \
    --workers "${WORKERS}" \
    --log-interval 1000 \
    --tokenizer-type PretrainedFromHF \
    --handler-name AlpacaStyleInstructionHandler \
    --prompt-type qwen \
    --map-keys '{"system":"system","history":"history"}' \
    --seq-length "${SEQ_LENGTH}" \
    "$@"
