"""The run directory: opened, taken up again, exported; and the models that names lead to."""
