"""Keeping backup media: what may be forgotten, what may be deleted, what is still sound."""
