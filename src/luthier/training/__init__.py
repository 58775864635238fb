"""Steps and a Method -> weights: one loop, exact checkpoints."""
