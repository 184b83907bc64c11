"""The tree of errors. Each says what was wrong and what to do, and keeps the data it speaks of."""


class RaphaError(Exception):
    """Base of every error that this project raises on purpose.

    `code` is the stable name that HTTP answers and `--json` carry; `final` tells whether trying the
    same again can ever succeed.
    """

    final = True

    @property
    def code(self) -> str:
        """The error's stable name."""
        return type(self).__name__


class InvalidInput(RaphaError, ValueError):
    """Something handed in does not have the form or the value that it must have."""


class InvalidSignature(InvalidInput):
    """A signature that is malformed, or that is not by whom it should be."""
