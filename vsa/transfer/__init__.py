"""Moving a disk from a snapshot to the media: deciding how, reading, comparing, storing, committing."""
