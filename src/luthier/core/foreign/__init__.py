"""What others wrote: run in processes beside us, read within bounds, and held to the form it must have."""
