"""Before training: what is in the data, token by token; whether a file is good to test by; what of a model fits into memory."""
