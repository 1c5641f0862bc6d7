"""From a recovery point back to something that boots: disk images first."""
