"""Luthier: tune language models on your own data, and measure what changed."""

__version__ = "0.1.0"
