#!/usr/bin/env bash
# A folder of files in several formats: each format is found from the first records of its file.
# The log says what each file was taken for, and why; where two formats fit, the run asks for one. The
# chat format is the template in the tokenizer's folder.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
INPUT="${INPUT:-${HERE}/data/mixed/}"                         # ./dataset/
TOKENIZER="${TOKENIZER:-${HERE}/tokenizer/}"                  # ./model_from_hf/qwen2.5_hf/
OUTPUT_PREFIX="${OUTPUT_PREFIX:-./finetune_dataset/mixed}"
WORKERS="${WORKERS:-4}"
SEQ_LENGTH="${SEQ_LENGTH:-4096}"                              # longer dialogues are rejected, and counted

python "${HERE}/../preprocess_data.py" \
    --input "${INPUT}" \
    --tokenizer-name-or-path "${TOKENIZER}" \
    --output-prefix "${OUTPUT_PREFIX}" \
    --workers "${WORKERS}" \
    --log-interval 1000 \
    --tokenizer-type PretrainedFromHF \
    --handler-name auto \
    --chat-template tokenizer \
    --seq-length "${SEQ_LENGTH}" \
    "$@"
