"""Report: a run as tables on the terminal, as figures and as one page."""
