"""Exceptions of a run."""

from feeder.errors import UserError


class RunError(UserError):
    """A run that cannot start or go on; its message is one line: what, where, what to do."""
