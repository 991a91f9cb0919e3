#!/usr/bin/env bash
# MOSS's dialogues with plugins, in its own text form, marks included.
# Thoughts, commands and answers are trained; what the plugins return is not. Of a dialogue that is too
# long the first turns stay (--overlong head is the default of this handler), as in MOSS's trainer.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
INPUT="${INPUT:-${HERE}/data/moss_plugins.jsonl}"             # ./dataset/moss-003-sft-data.jsonl
TOKENIZER="${TOKENIZER:-${HERE}/tokenizer/}"                  # ./model_from_hf/moss_hf/
OUTPUT_PREFIX="${OUTPUT_PREFIX:-./finetune_dataset/moss_plugins}"
WORKERS="${WORKERS:-4}"
SEQ_LENGTH="${SEQ_LENGTH:-2048}"

python "${HERE}/../preprocess_data.py" \
    --input "${INPUT}" \
    --tokenizer-name-or-path "${TOKENIZER}" \
    --output-prefix "${OUTPUT_PREFIX}" \
    --workers "${WORKERS}" \
    --log-interval 1000 \
    --tokenizer-type PretrainedFromHF \
    --handler-name MOSSHandler \
    --seq-length "${SEQ_LENGTH}" \
    "$@"
