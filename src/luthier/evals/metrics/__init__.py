"""One answer -> one number."""
