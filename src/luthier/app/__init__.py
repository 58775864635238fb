"""A run, put together: the only package that knows all the others."""
