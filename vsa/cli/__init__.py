"""The command `vsa`: look at backup media and restore from it, on a bare machine, without Prefect."""

from vsa.cli.program import main

__all__ = ["main"]
