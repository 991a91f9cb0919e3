#!/usr/bin/env bash
# Chat messages for Llama 2: the system text stands inside the first [INST].
# Of each dialogue the last reply alone is trained; --train-on assistant (the default) trains all of them.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
INPUT="${INPUT:-${HERE}/data/messages.jsonl}"                 # ./dataset/train.jsonl
TOKENIZER="${TOKENIZER:-${HERE}/tokenizer/}"                  # ./model_from_hf/llama-2-7b-hf/
OUTPUT_PREFIX="${OUTPUT_PREFIX:-./finetune_dataset/llama2_messages}"
WORKERS="${WORKERS:-4}"
SEQ_LENGTH="${SEQ_LENGTH:-4096}"                              # longer dialogues are rejected, and counted
TRAIN_ON="${TRAIN_ON:-last}"                                  # assistant, last, last-round, split or full

python "${HERE}/../preprocess_data.py" \
    --input "${INPUT}" \
    --tokenizer-name-or-path "${TOKENIZER}" \
    --output-prefix "${OUTPUT_PREFIX}" \
    --workers "${WORKERS}" \
    --log-interval 1000 \
    --tokenizer-type PretrainedFromHF \
    --handler-name OpenAIInstructionHandler \
    --prompt-type llama2 \
    --train-on "${TRAIN_ON}" \
    --seq-length "${SEQ_LENGTH}" \
    "$@"
