"""Batch -> Output: where models come from, what of them is tuned, and the one forward pass."""
