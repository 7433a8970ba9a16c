"""What a user can mend, told in one line."""


class UserError(Exception):
    """An error that the user can mend; its message is one line: what, where, what to do."""


class DataError(UserError):
    """A path, file or array that cannot be used; where is a file and its line, or a sample."""
