"""The one error that a user of `analysis` can cause."""


class InputError(Exception):
    """The folder or its study.json cannot be used; the message is one line for the user."""
