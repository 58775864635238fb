"""Types, settings, errors, seeds, files, progress, processes beside us, and how what is foreign reaches us: what every other layer stands on."""
