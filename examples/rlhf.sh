#!/usr/bin/env bash
# The chain of InstructGPT on one machine: demonstrations, a reward model on rankings, PPO with and without the
# pretraining term (Ouyang et al. 2022). Usage: examples/rlhf.sh [DATA] [OUT]
#
# DATA holds rasbt_instruct/instruction-data.json (instruction, input, output; of github.com/rasbt/LLMs-from-scratch, ch07) and
# alpaca_eval_pref/alpaca_eval_pref_train.jsonl.gz (instruction, output_1, output_2, preference, several pairs to an instruction).
# Needs the environment: . .venv/bin/activate. Killed and started again, it goes on.
set -euo pipefail
data=${1:-../shared/data} out=${2:-runs/rlhf}

# 0. Split once. What is held out of the demonstrations is seen by no step below, the pretraining term included; the rankings
#    of one half of the instructions teach the reward model, those of the other half the judge.
[ -e "$out/data/train.jsonl" ] ||
  luthier data "$data/rasbt_instruct/instruction-data.json" --split --out "$out/data" --data.holdout 0.09
[ -e "$out/rankings/train.jsonl" ] ||
  luthier data "$data/alpaca_eval_pref/alpaca_eval_pref_train.jsonl.gz" --split --out "$out/rankings" --data.holdout 0.5
train=$out/data/train.jsonl test=$out/data/test.jsonl

# 1. Supervised tuning on demonstrations: the starting point, and the reference of what follows.
luthier train "$train" --data.eval "$test" --out "$out/sft" --train.steps 36 --train.batch 16 --eval.rows 60 --eval.samples 0

# 2. Two reward models, each from rankings that the other has not seen: all answers to an instruction are one example, its
#    comparisons weighed together. The first is learned from below; the second only judges whether what it rewards is real.
for half in reward judge; do
  rows=$out/rankings/train.jsonl steps=24
  [ "$half" = judge ] && rows=$out/rankings/test.jsonl steps=60 # who judges should know better
  luthier train "$rows" --method reward --model "$out/sft" --out "$out/$half" \
    --text.max_length 96 --train.steps "$steps" --train.batch 4 --eval.rows 30 --no-eval.forgetting
done

# 3. PPO twice: the same rewards, without and with the likelihood of the demonstrations in the loss.
for kind in plain pretrain; do
  extra=()
  [ "$kind" = pretrain ] && extra=(--policy.pretrain "$train" --policy.pretrain_weight 0.5)
  luthier train "$train" --data.eval "$test" --method ppo --model "$out/sft" --out "$out/ppo-$kind" \
    --reward "model:$out/reward" --reward.judge "model:$out/judge" --rollout.samples 4 --rollout.max_new_tokens 32 \
    --train.batch 8 --train.steps 16 --eval.rows 60 --eval.samples 99 --eval.temperature 1 --eval.max_new_tokens 32 "${extra[@]}"
done

# 4. What it came to: rewards of held-out answers by the model learned from and by the judge, and what was forgotten.
python - "$out" <<'PY'
import json, sys
from pathlib import Path

def moved(metric):
    return f"{metric['before']:.3f} -> {metric['after']:.3f} [{metric['low']:+.3f}, {metric['high']:+.3f}]"

for name in ("sft", "ppo-plain", "ppo-pretrain"):
    result = json.loads(Path(sys.argv[1], name, "result.json").read_text())
    metrics = result["metrics"]
    print(f"\n{name}")
    for metric, words in (("reward", "reward"), ("judge", "judge"), ("loss", "loss of the demonstrations")):
        if metric in metrics:
            print(f"  {words:<28}{moved(metrics[metric])}")
    if "judge" in result:
        print(f"  {'is it real?':<28}{result['judge']['sentence']}")
    if "kl_per_answer" in result:
        print(f"  {'KL, nats per answer':<28}{result['kl_per_answer']:.2f}")
    print(f"  {'forgetting':<28}{result['forgetting']['sentence']}")
PY
