"""The command `vsa`: look at backup media, restore from it, keep it; on a bare machine, without Prefect."""

from vsa.cli.program import main

__all__ = ["main"]
