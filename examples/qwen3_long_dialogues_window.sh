#!/usr/bin/env bash
# Long ShareGPT dialogues for Qwen3, cut into windows.
# A dialogue that is too long becomes several samples. Each has as many earlier rounds as fit, as context
# that is not trained, so every reply is trained exactly once.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
INPUT="${INPUT:-${HERE}/data/long_dialogues.jsonl}"           # ./dataset/sharegpt.json
TOKENIZER="${TOKENIZER:-${HERE}/tokenizer/}"                  # ./model_from_hf/qwen3_hf/
OUTPUT_PREFIX="${OUTPUT_PREFIX:-./finetune_dataset/qwen3_window}"
WORKERS="${WORKERS:-4}"
SEQ_LENGTH="${SEQ_LENGTH:-240}"                               # 4096; so short that the bundled data don't fit

python "${HERE}/../preprocess_data.py" \
    --input "${INPUT}" \
    --tokenizer-name-or-path "${TOKENIZER}" \
    --output-prefix "${OUTPUT_PREFIX}" \
    --workers "${WORKERS}" \
    --log-interval 1000 \
    --tokenizer-type PretrainedFromHF \
    --handler-name SharegptStyleInstructionHandler \
    --prompt-type qwen3 \
    --seq-length "${SEQ_LENGTH}" \
    --overlong window \
    "$@"
