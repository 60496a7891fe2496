"""DVC experiments run in the background, several at once: what a search and a study share."""
