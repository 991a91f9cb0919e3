#!/usr/bin/env bash
# ShareGPT with tools for GLM-4: the tools stand in a system message as in its own template.
# The end of each turn is taught by the token in front of the next one; see docs/prompt-types.md on
# efficient_eos.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
INPUT="${INPUT:-${HERE}/data/sharegpt_tools.jsonl}"           # ./dataset/glaive_toolcall.json
TOKENIZER="${TOKENIZER:-${HERE}/tokenizer/}"                  # ./model_from_hf/glm4_hf/
OUTPUT_PREFIX="${OUTPUT_PREFIX:-./finetune_dataset/glm4_tools}"
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
    --prompt-type glm4 \
    --map-keys '{"system":"system","tools":"tools"}' \
    --seq-length "${SEQ_LENGTH}" \
    "$@"
