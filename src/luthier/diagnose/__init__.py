"""What is wrong with the answers of a run, which rows taught it, and how to fix them."""
