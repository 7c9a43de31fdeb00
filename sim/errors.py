"""What a person got wrong: a file, an option or a value. Never raised for a fault of our own."""

from __future__ import annotations


class InputError(ValueError):
    """Wrong input, told in one line that names the file and field, or the option."""
