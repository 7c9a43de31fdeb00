"""HTTP: requests in, answers out. Nothing here decides, learns or spends."""
