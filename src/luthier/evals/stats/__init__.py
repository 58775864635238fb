"""How sure a number or a difference is."""
