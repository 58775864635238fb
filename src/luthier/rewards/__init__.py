"""Rewards: text in, one number an answer out. What PPO, GRPO and best-of-n reach for."""
