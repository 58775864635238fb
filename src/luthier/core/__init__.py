"""Types, settings, errors, seeds, files, progress, processes beside us, and what is foreign: what every other layer stands on."""
