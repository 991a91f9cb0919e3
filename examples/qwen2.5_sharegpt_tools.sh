#!/usr/bin/env bash
# ShareGPT with tools for Qwen2.5: calls are trained, what tools return is not.
# The prompt type writes tools as MindSpeed-LLM does. Serving engines take the model's own template: with
# its folder as TOKENIZER, --chat-template tokenizer in the place of --prompt-type gives what they give.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
INPUT="${INPUT:-${HERE}/data/sharegpt_tools.jsonl}"           # ./dataset/glaive_toolcall.json
TOKENIZER="${TOKENIZER:-${HERE}/tokenizer/}"                  # ./model_from_hf/qwen2.5_hf/
OUTPUT_PREFIX="${OUTPUT_PREFIX:-./finetune_dataset/qwen2.5_tools}"
WORKERS="${WORKERS:-4}"
SEQ_LENGTH="${SEQ_LENGTH:-4096}"                              # longer dialogues are rejected, and counted

python "${HERE}/../preprocess_data.py" \
    --input "${INPUT}" \
    --tokenizer-name-or-path "${TOKENIZER}" \
    --output-prefix "${OUTPUT_PREFIX}" \
    --workers "${WORKERS}" \
    --log-interval 1000 \
    --tokenizer-type PretrainedFromHF \
    --handler-name SharegptStyleInstructionHandler \
    --prompt-type qwen \
    --map-keys '{"system":"system","tools":"tools"}' \
    --seq-length "${SEQ_LENGTH}" \
    "$@"
