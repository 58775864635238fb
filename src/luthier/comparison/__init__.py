"""Models and runs on the same items: who is better, by how much, and whether chance alone could do it."""
