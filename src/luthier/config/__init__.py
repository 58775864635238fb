"""Settings of a run: one tree of sections."""
