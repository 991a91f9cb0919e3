#!/usr/bin/env bash
# Rows with prompt, response and history for ChatGLM-6B, in its numbered rounds ("[Round 0]\n问：...").
# The handler brings its text form along, so no --prompt-type is named, and trains each reply in a sample
# of its own (--train-on split), as ChatGLM's trainer has it.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
INPUT="${INPUT:-${HERE}/data/chatglm_history.json}"           # ./dataset/chat_train.json
TOKENIZER="${TOKENIZER:-${HERE}/tokenizer/}"                  # ./model_from_hf/chatglm_hf/
OUTPUT_PREFIX="${OUTPUT_PREFIX:-./finetune_dataset/chatglm_history}"
WORKERS="${WORKERS:-4}"
SEQ_LENGTH="${SEQ_LENGTH:-2048}"                              # longer samples are rejected, and counted
FIRST_ROUND="${FIRST_ROUND:-0}"                               # ChatGLM2 and later count from 1

python "${HERE}/../preprocess_data.py" \
    --input "${INPUT}" \
    --tokenizer-name-or-path "${TOKENIZER}" \
    --output-prefix "${OUTPUT_PREFIX}" \
    --workers "${WORKERS}" \
    --log-interval 1000 \
    --tokenizer-type PretrainedFromHF \
    --handler-name ChatGLMHandler \
    --first-round "${FIRST_ROUND}" \
    --seq-length "${SEQ_LENGTH}" \
    "$@"
