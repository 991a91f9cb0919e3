#!/usr/bin/env bash
# Plain text for pretraining: each document, closed by EOS, becomes an item of OUTPUT_PREFIX_text_document.
# There are no labels and no masks, and nothing is cut: trainers do that themselves.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
INPUT="${INPUT:-${HERE}/data/documents.jsonl}"                # ./dataset/train-00000-of-00042.parquet
TOKENIZER="${TOKENIZER:-${HERE}/tokenizer/}"                  # ./model_from_hf/qwen2.5_hf/
OUTPUT_PREFIX="${OUTPUT_PREFIX:-./finetune_dataset/pretrain}"
WORKERS="${WORKERS:-4}"
JSON_KEY="${JSON_KEY:-text}"                                  # the column with the text

python "${HERE}/../preprocess_data.py" \
    --input "${INPUT}" \
    --tokenizer-name-or-path "${TOKENIZER}" \
    --output-prefix "${OUTPUT_PREFIX}" \
    --workers "${WORKERS}" \
    --log-interval 1000 \
    --tokenizer-type PretrainedFromHF \
    --handler-name GeneralPretrainHandler \
    --json-keys "${JSON_KEY}" \
    --append-eod \
    "$@"
