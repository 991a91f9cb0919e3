#!/usr/bin/env bash
# Packs for Qwen2.5: several dialogues in each item of SEQ_LENGTH tokens, told apart by the attention mask
# (1, 2, ...; padding 0). Each starts at a multiple of ALIGN tokens: for context parallelism twice its size.
# Then the same dialogues in packs of another length, without a tokenizer and without reading the data again.
# That is made anew whenever the first is, so --overwrite is needed for the first alone.
# examples/train_packed_llama.py trains on either.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
INPUT="${INPUT:-${HERE}/data/alpaca_history.json}"            # ./dataset/alpaca_gpt4_data.json
TOKENIZER="${TOKENIZER:-${HERE}/tokenizer/}"                  # ./model_from_hf/qwen2.5_hf/
OUTPUT_PREFIX="${OUTPUT_PREFIX:-./finetune_dataset/qwen2.5_packs}"
WORKERS="${WORKERS:-4}"
SEQ_LENGTH="${SEQ_LENGTH:-1024}"                              # 4096; longer dialogues are rejected, and counted
ALIGN="${ALIGN:-8}"
OTHER_LENGTH="${OTHER_LENGTH:-2048}"                          # 8192

python "${HERE}/../preprocess_data.py" \
    --input "${INPUT}" \
    --tokenizer-name-or-path "${TOKENIZER}" \
    --output-prefix "${OUTPUT_PREFIX}" \
    --workers "${WORKERS}" \
    --log-interval 1000 \
    --tokenizer-type PretrainedFromHF \
    --handler-name AlpacaStyleInstructionHandler \
    --prompt-type qwen \
    --map-keys '{"system":"system","history":"history"}' \
    --seq-length "${SEQ_LENGTH}" \
    --pack \
    --neat-pack \
    --align "${ALIGN}" \
    "$@"

mtsft repack "${OUTPUT_PREFIX}" \
    --output-prefix "${OUTPUT_PREFIX}_${OTHER_LENGTH}" \
    --workers "${WORKERS}" \
    --seq-length "${OTHER_LENGTH}" \
    --neat-pack \
    --align "${ALIGN}" \
    --overwrite
