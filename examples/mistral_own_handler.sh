#!/usr/bin/env bash
# A data format of your own: HANDLER_PATH is a Python file with a handler.
# my_handler.py has one in 15 lines; its name for --handler-name stands in @handler("questions").
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
INPUT="${INPUT:-${HERE}/data/questions.jsonl}"                # ./dataset/questions.jsonl
TOKENIZER="${TOKENIZER:-${HERE}/tokenizer/}"                  # ./model_from_hf/mistral_hf/
OUTPUT_PREFIX="${OUTPUT_PREFIX:-./finetune_dataset/own_handler}"
WORKERS="${WORKERS:-4}"
HANDLER_PATH="${HANDLER_PATH:-${HERE}/my_handler.py}"
SEQ_LENGTH="${SEQ_LENGTH:-4096}"                              # longer dialogues are rejected, and counted

python "${HERE}/../preprocess_data.py" \
    --input "${INPUT}" \
    --tokenizer-name-or-path "${TOKENIZER}" \
    --output-prefix "${OUTPUT_PREFIX}" \
    --workers "${WORKERS}" \
    --log-interval 1000 \
    --tokenizer-type PretrainedFromHF \
    --handler-path "${HANDLER_PATH}" \
    --handler-name questions \
    --prompt-type mistral \
    --seq-length "${SEQ_LENGTH}" \
    "$@"
