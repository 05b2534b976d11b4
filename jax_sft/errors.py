"""Errors meant for the person who typed the command: one line, what and where and the remedy."""


class JaxSftError(Exception):
    """Something failed that the user can act on; the command ends with exit code 1."""

    exit_code = 1


class UsageError(JaxSftError):
    """The command, a flag, a study or a row is wrong; the command ends with exit code 2."""

    exit_code = 2
