"""One module for each command of ``python -m sim``, each with its function `command`."""
