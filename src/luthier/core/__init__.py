"""Types, settings, errors, seeds, files and progress: what every other layer stands on."""
