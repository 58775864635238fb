#!/usr/bin/env bash
# The chain of InstructGPT on one machine: demonstrations, a reward model on rankings, PPO with and without the
# pretraining term (Ouyang et al. 2022). Usage: examples/rlhf.sh [DATA] [OUT]
#
# DATA holds rasbt_instruct/instruction-data.json (instruction, input, output; of github.com/rasbt/LLMs-from-scratch, ch07) and
# alpaca_eval_pref/alpaca_eval_pref_train.jsonl.gz (instruction, output_1, output_2, preference, several pairs to an instruction).
# Needs the environment: . .venv/bin/activate. Killed and started again, it goes on.
set -euo pipefail
data=${1:-../shared/data} out=${2:-runs/rlhf}

# 0. Demonstrations, split once: what is held out here is seen by no step below, the pretraining term included.
[ -e "$out/data/train.jsonl" ] ||
  luthier data "$data/rasbt_instruct/instruction-data.json" --split --out "$out/data" --data.holdout 0.06
train=$out/data/train.jsonl test=$out/data/test.jsonl

# 1. Supervised tuning on demonstrations: the starting point, and the reference of what follows.
luthier train "$train" --data.eval "$test" --out "$out/sft" --train.steps 36 --train.batch 16 \
  --eval.rows 60 --eval.samples 0 --no-eval.forgetting

# 2. A reward model: all answers to an instruction are one example, its comparisons weighed together.
luthier train "$data/alpaca_eval_pref/alpaca_eval_pref_train.jsonl.gz" --method reward --model "$out/sft" \
  --out "$out/reward" --limit 2500 --text.max_length 96 --train.steps 24 --train.batch 4 --eval.rows 30

# 3. PPO twice: the same rewards, without and with the likelihood of the demonstrations in the loss.
for kind in plain pretrain; do
  extra=()
  [ "$kind" = pretrain ] && extra=(--policy.pretrain "$train" --policy.pretrain_weight 0.5)
  luthier train "$train" --data.eval "$test" --method ppo --model "$out/sft" --out "$out/ppo-$kind" \
    --reward "model:$out/reward" --rollout.samples 1 --rollout.max_new_tokens 32 --train.batch 16 --train.steps 16 \
    --policy.epochs 2 --policy.kl 0.005 --train.lr 6e-4 --train.schedule constant --eval.rows 60 --eval.samples 60 \
    --eval.max_new_tokens 32 --no-eval.forgetting "${extra[@]}"
done

# 4. What it came to.
python - "$out" <<'PY'
import json, sys
from pathlib import Path

print(f"\n{'run':<14}{'reward before':>15}{'after':>9}{'KL, nats':>10}{'likelihood loss before':>24}{'after':>9}")
for name in ("ppo-plain", "ppo-pretrain"):
    result = json.loads(Path(sys.argv[1], name, "result.json").read_text())
    reward, loss = result["metrics"]["reward"], result["metrics"]["loss"]
    print(
        f"{name:<14}{reward['before']:>15.3f}{reward['after']:>9.3f}{result['kl_per_answer']:>10.2f}"
        f"{loss['before']:>24.4f}{loss['after']:>9.4f}"
    )
PY
