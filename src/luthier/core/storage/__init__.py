"""Files that are whole or absent, opened without trust, with checksums, cleared when their writer was killed."""
