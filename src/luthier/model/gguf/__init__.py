"""GGUF files -> transformers folders."""
