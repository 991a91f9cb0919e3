#!/usr/bin/env bash
# BELLE's multi-turn rows, whose instruction holds the earlier turns, in Alpaca's text form.
# The form has no stop token, so --append-eod adds one. With --prompt-type the rounds take that chat
# format instead.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
INPUT="${INPUT:-${HERE}/data/belle_rounds.jsonl}"             # ./dataset/multiturn_chat_0.8M.json
TOKENIZER="${TOKENIZER:-${HERE}/tokenizer/}"                  # ./model_from_hf/llama-2-7b-hf/
OUTPUT_PREFIX="${OUTPUT_PREFIX:-./finetune_dataset/belle_rounds}"
WORKERS="${WORKERS:-4}"
SEQ_LENGTH="${SEQ_LENGTH:-2048}"                              # longer dialogues are rejected, and counted

python "${HERE}/../preprocess_data.py" \
    --input "${INPUT}" \
    --tokenizer-name-or-path "${TOKENIZER}" \
    --output-prefix "${OUTPUT_PREFIX}" \
    --workers "${WORKERS}" \
    --log-interval 1000 \
    --tokenizer-type PretrainedFromHF \
    --handler-name BelleMultiTurnInstructionHandler \
    --append-eod \
    --seq-length "${SEQ_LENGTH}" \
    "$@"
