"""One file a command: its options, the call into `app`, and what is printed."""
