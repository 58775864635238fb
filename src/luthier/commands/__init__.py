"""One file a command: its options, the call into a use case, and what is printed."""
