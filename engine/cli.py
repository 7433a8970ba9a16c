"""How a script ends: as the commands of feeder do, which imports nothing from here."""

from feeder.cli import CommandLine, script

__all__ = ["CommandLine", "script"]
