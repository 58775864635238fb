"""Settings -> a run: prepare, build, train, measure, choose the best checkpoint, tell what was forgotten."""
