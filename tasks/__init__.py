"""One module for each documented stage of a backup. Names, retries, one engine call; no logic."""
