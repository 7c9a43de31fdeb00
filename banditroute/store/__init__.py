"""SQL, the only truth: tables and migrations, the log, and the one writer per process."""
