"""What commands print on the screen: from the keys of their `--json`, one file a command."""
