#!/usr/bin/env bash
# Chat messages with reasoning and tool calls for Qwen3.
# reasoning_content becomes <think>...</think>, tool_calls become <tool_call>...</tool_call>; both are
# trained. With Qwen3's own folder as TOKENIZER, --chat-template tokenizer in the place of --prompt-type
# writes what serving engines write, which leaves out thoughts of earlier rounds; --parity split trains
# those in samples of their own.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
INPUT="${INPUT:-${HERE}/data/messages_tools.jsonl}"           # ./dataset/train.jsonl
TOKENIZER="${TOKENIZER:-${HERE}/tokenizer/}"                  # ./model_from_hf/qwen3_hf/
OUTPUT_PREFIX="${OUTPUT_PREFIX:-./finetune_dataset/qwen3_tools}"
WORKERS="${WORKERS:-4}"
SEQ_LENGTH="${SEQ_LENGTH:-4096}"                              # longer dialogues are rejected, and counted
ENABLE_THINKING="${ENABLE_THINKING:-true}"                    # false leaves all thoughts out

python "${HERE}/../preprocess_data.py" \
    --input "${INPUT}" \
    --tokenizer-name-or-path "${TOKENIZER}" \
    --output-prefix "${OUTPUT_PREFIX}" \
    --workers "${WORKERS}" \
    --log-interval 1000 \
    --tokenizer-type PretrainedFromHF \
    --handler-name OpenAIInstructionHandler \
    --prompt-type qwen3 \
    --enable-thinking "${ENABLE_THINKING}" \
    --seq-length "${SEQ_LENGTH}" \
    "$@"
