#!/usr/bin/env bash
# Datasets by the names that LLaMA-Factory's dataset_info.json gives them, with its columns and tags.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
INPUT="${INPUT:-alpaca_history,long_dialogues,library_desk}"  # identity,alpaca_en_demo
TOKENIZER="${TOKENIZER:-${HERE}/tokenizer/}"                  # ./model_from_hf/qwen2.5_hf/
OUTPUT_PREFIX="${OUTPUT_PREFIX:-./finetune_dataset/llama_factory}"
WORKERS="${WORKERS:-4}"
DATASET_DIR="${DATASET_DIR:-${HERE}/data/}"                   # LLaMA-Factory/data/
SEQ_LENGTH="${SEQ_LENGTH:-4096}"                              # longer dialogues are rejected, and counted

python "${HERE}/../preprocess_data.py" \
    --input "${INPUT}" \
    --tokenizer-name-or-path "${TOKENIZER}" \
    --output-prefix "${OUTPUT_PREFIX}" \
    --workers "${WORKERS}" \
    --log-interval 1000 \
    --tokenizer-type PretrainedFromHF \
    --handler-name LlamaFactoryInstructionHandler \
    --dataset-dir "${DATASET_DIR}" \
    --prompt-type qwen \
    --seq-length "${SEQ_LENGTH}" \
    "$@"
