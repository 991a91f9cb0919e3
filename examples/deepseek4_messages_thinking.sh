#!/usr/bin/env bash
# Chat messages with thoughts for DeepSeek-V4.
# When it serves, the model meets no thoughts of earlier turns. --parity split gives a turn whose thoughts
# would be left out for that a sample of its own, so all of them are trained in the text that serving has.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
INPUT="${INPUT:-${HERE}/data/messages_thinking.jsonl}"        # ./dataset/train.jsonl
TOKENIZER="${TOKENIZER:-${HERE}/tokenizer/}"                  # ./model_from_hf/deepseek4_hf/
OUTPUT_PREFIX="${OUTPUT_PREFIX:-./finetune_dataset/deepseek4_thinking}"
WORKERS="${WORKERS:-4}"
SEQ_LENGTH="${SEQ_LENGTH:-8192}"                              # longer samples are rejected, and counted

python "${HERE}/../preprocess_data.py" \
    --input "${INPUT}" \
    --tokenizer-name-or-path "${TOKENIZER}" \
    --output-prefix "${OUTPUT_PREFIX}" \
    --workers "${WORKERS}" \
    --log-interval 1000 \
    --tokenizer-type PretrainedFromHF \
    --handler-name OpenAIInstructionHandler \
    --prompt-type deepseek4 \
    --enable-thinking true \
    --parity split \
    --seq-length "${SEQ_LENGTH}" \
    "$@"
