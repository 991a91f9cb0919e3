#!/usr/bin/env bash
# A training set of several sources: mixed by weights, without duplicates, with validation data set aside,
# then packed and joined with a dataset that was made earlier.
# The mix is written down in OUTPUT_PREFIX_mix.yaml, where every source can have a handler, columns, a weight
# (or epochs) and a limit of its own.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
INPUT="${INPUT:-${HERE}/data/alpaca_history.json}"            # ./dataset/alpaca_gpt4_data.json
TOKENIZER="${TOKENIZER:-${HERE}/tokenizer/}"                  # ./model_from_hf/qwen2.5_hf/
OUTPUT_PREFIX="${OUTPUT_PREFIX:-./finetune_dataset/mix}"
WORKERS="${WORKERS:-4}"
CHATS="${CHATS:-${HERE}/data/messages.jsonl}"                 # ./dataset/chats.jsonl
MORE_CHATS="${MORE_CHATS:-${HERE}/data/messages_more.jsonl}"  # ./dataset/more_chats/*.jsonl
EARLIER_INPUT="${EARLIER_INPUT:-${HERE}/data/long_dialogues.jsonl}"
SPLIT="${SPLIT:-90,10}"                                       # 969,30,1 are train, valid and test
SEQ_LENGTH="${SEQ_LENGTH:-1024}"                              # 4096

# The dataset that is there already: packs of its own.
python "${HERE}/../preprocess_data.py" \
    --input "${EARLIER_INPUT}" \
    --tokenizer-name-or-path "${TOKENIZER}" \
    --output-prefix "${OUTPUT_PREFIX}_earlier" \
    --workers "${WORKERS}" \
    --handler-name SharegptStyleInstructionHandler \
    --prompt-type qwen \
    --seq-length "${SEQ_LENGTH}" \
    --pack --neat-pack \
    "$@"

# Four in five dialogues from INPUT, until each source has been gone through: CHATS repeats itself. Of equal
# dialogues the first is kept; the others stand in OUTPUT_PREFIX_mixed.rejected.jsonl.
cat > "${OUTPUT_PREFIX}_mix.yaml" <<YAML
weights_by: samples
sources:
  alpaca:
    input: "${INPUT}"
    handler: AlpacaStyleInstructionHandler
    map_keys: {system: system, history: history}
    weight: 0.8
  chats:
    input: ["${CHATS}", "${MORE_CHATS}"]
    handler: OpenAIInstructionHandler
    weight: 0.2
YAML
python "${HERE}/../preprocess_data.py" \
    --mix "${OUTPUT_PREFIX}_mix.yaml" \
    --mix-strategy interleave_over \
    --tokenizer-name-or-path "${TOKENIZER}" \
    --output-prefix "${OUTPUT_PREFIX}_mixed" \
    --workers "${WORKERS}" \
    --prompt-type qwen \
    --dedup \
    --split "${SPLIT}" \
    --shuffle \
    "$@"

# The side to train on becomes packs, without a tokenizer; OUTPUT_PREFIX_mixed_valid stays as it is.
mtsft repack "${OUTPUT_PREFIX}_mixed_train" \
    --output-prefix "${OUTPUT_PREFIX}_packs" \
    --workers "${WORKERS}" \
    --seq-length "${SEQ_LENGTH}" \
    --neat-pack \
    --shuffle \
    --overwrite

mtsft merge "${OUTPUT_PREFIX}_packs" "${OUTPUT_PREFIX}_earlier" --output-prefix "${OUTPUT_PREFIX}" --overwrite
