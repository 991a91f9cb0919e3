#!/usr/bin/env bash
# Chat messages for Llama 3.
# A message with "weight": 0 (or "train": false) is context only; data/messages.jsonl has one.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
INPUT="${INPUT:-${HERE}/data/messages.jsonl}"                 # ./dataset/train.jsonl
TOKENIZER="${TOKENIZER:-${HERE}/tokenizer/}"                  # ./model_from_hf/llama-3-8b-hf/
OUTPUT_PREFIX="${OUTPUT_PREFIX:-./finetune_dataset/llama3_messages}"
WORKERS="${WORKERS:-4}"
SEQ_LENGTH="${SEQ_LENGTH:-4096}"                              # longer dialogues are rejected, and counted

python "${HERE}/../preprocess_data.py" \
    --input "${INPUT}" \
    --tokenizer-name-or-path "${TOKENIZER}" \
    --output-prefix "${OUTPUT_PREFIX}" \
    --workers "${WORKERS}" \
    --log-interval 1000 \
    --tokenizer-type PretrainedFromHF \
    --handler-name OpenAIInstructionHandler \
    --prompt-type llama3 \
    --seq-length "${SEQ_LENGTH}" \
    "$@"
