"""The one exception of the data side."""


class DataError(Exception):
    """A path, file or array that cannot be used; its message is one line: what, where (file, line or sample), what to do."""
