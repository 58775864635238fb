"""A model's folder: what it must be, checked before anything of it is believed."""
