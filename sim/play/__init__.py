"""Play: candidates meet a world, one request after another. Nothing is judged here."""
