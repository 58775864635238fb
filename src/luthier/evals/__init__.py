"""A model and held-out rows -> numbers with intervals."""
