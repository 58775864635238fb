"""Batch, Output, settings -> Loss: pure functions that return weighted sums."""
