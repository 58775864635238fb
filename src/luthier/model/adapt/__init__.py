"""What of a model learns: full, head, layers, adapters; quantized bases."""
