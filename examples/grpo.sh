#!/usr/bin/env bash
# A reward that can be checked: is the answer the right intent? A little supervised tuning shows the model what an
# intent looks like, then GRPO learns from its own right and wrong answers alone. Usage: examples/grpo.sh [DATA] [OUT]
#
# DATA holds banking77/train.csv and banking77/test.csv (text, category; of github.com/PolyAI-LDN/task-specific-datasets).
# Needs the environment: . .venv/bin/activate. Killed and started again, it goes on.
set -euo pipefail
data=${1:-../shared/data}/banking77 out=${2:-runs/grpo}

luthier train "$data/train.csv" --out "$out/sft" --text.template plain --train.steps 60 --train.lr 1e-3 \
  --data.eval "$data/test.csv" --eval.rows 50 --eval.samples 0 --no-eval.forgetting

luthier train "$data/train.csv" --method grpo --model "$out/sft" --out "$out/grpo" --reward exact \
  --data.eval "$data/test.csv" --eval.rows 50 --eval.samples 300 --eval.max_new_tokens 18 --no-eval.forgetting \
  --eval.temperature 0.8 --rollout.temperature 0.8 --rollout.samples 8 --rollout.max_new_tokens 18 \
  --train.batch 16 --train.steps 30 --train.lr 1e-4
