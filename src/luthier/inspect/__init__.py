"""Data before training: what is in it, token by token, and whether a file is good to test by."""
