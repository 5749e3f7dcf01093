"""What a stage may raise and its command line tells in one line."""


class UserError(Exception):
    """Something the user can fix.

    The message is one sentence that names the file or flag and the way out.
    """


class Terminated(BaseException):
    """SIGTERM came."""
