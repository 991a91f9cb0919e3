#!/usr/bin/env bash
# Pairs of replies in ShareGPT's form for Llama 3, as DPO and reward models need them.
# Writes chosen_input_ids, chosen_labels, rejected_input_ids and rejected_labels.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
INPUT="${INPUT:-${HERE}/data/sharegpt_pairs.jsonl}"           # ./dataset/dpo_zh.json
TOKENIZER="${TOKENIZER:-${HERE}/tokenizer/}"                  # ./model_from_hf/llama-3-8b-hf/
OUTPUT_PREFIX="${OUTPUT_PREFIX:-./finetune_dataset/llama3_pairs}"
WORKERS="${WORKERS:-4}"
SEQ_LENGTH="${SEQ_LENGTH:-4096}"                              # longer pairs are rejected, and counted

python "${HERE}/../preprocess_data.py" \
    --input "${INPUT}" \
    --tokenizer-name-or-path "${TOKENIZER}" \
    --output-prefix "${OUTPUT_PREFIX}" \
    --workers "${WORKERS}" \
    --log-interval 1000 \
    --tokenizer-type PretrainedFromHF \
    --handler-name SharegptStylePairwiseHandler \
    --prompt-type llama3 \
    --seq-length "${SEQ_LENGTH}" \
    "$@"
