"""Exceptions of a run."""


class RunError(Exception):
    """A run that cannot start or go on; its message is one line: what, where, what to do."""
