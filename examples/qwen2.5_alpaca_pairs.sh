#!/usr/bin/env bash
# Pairs of replies as Alpaca rows for Qwen2.5, as DPO and reward models need them.
# Writes chosen_input_ids, chosen_labels, rejected_input_ids and rejected_labels.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
INPUT="${INPUT:-${HERE}/data/alpaca_pairs.jsonl}"             # ./dataset/orca_rlhf.jsonl
TOKENIZER="${TOKENIZER:-${HERE}/tokenizer/}"                  # ./model_from_hf/qwen2.5_hf/
OUTPUT_PREFIX="${OUTPUT_PREFIX:-./finetune_dataset/qwen2.5_pairs}"
WORKERS="${WORKERS:-4}"
SEQ_LENGTH="${SEQ_LENGTH:-4096}"                              # longer pairs are rejected, and counted

python "${HERE}/../preprocess_data.py" \
    --input "${INPUT}" \
    --tokenizer-name-or-path "${TOKENIZER}" \
    --output-prefix "${OUTPUT_PREFIX}" \
    --workers "${WORKERS}" \
    --log-interval 1000 \
    --tokenizer-type PretrainedFromHF \
    --handler-name AlpacaStylePairwiseHandler \
    --prompt-type qwen \
    --map-keys '{"history":"history"}' \
    --seq-length "${SEQ_LENGTH}" \
    "$@"
