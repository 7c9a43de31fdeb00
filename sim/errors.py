"""Errors in what a user gives: a file, an option or a value. Never raised for a bug of ours."""

from __future__ import annotations


class InputError(ValueError):
    """Wrong input. The message is one line that names the file and field, or the option."""
