"""What runs inside a forward pass."""
