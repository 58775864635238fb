"""Where models come from: embedded names, folders, the hub, and the cache of converted ones."""
