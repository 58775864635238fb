"""Raw files -> Example: read, understand, clean, split, mix, describe."""
