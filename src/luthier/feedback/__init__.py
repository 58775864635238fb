"""Answers sampled and scored by rewards: best-of-n, rejection sampling, and reward models on files."""
