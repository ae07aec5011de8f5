"""What is wrong with data, in plain English."""


class DataError(ValueError):
    """A dataset that cannot be had; the message says what to do."""
