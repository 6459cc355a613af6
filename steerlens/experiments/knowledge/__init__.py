"""Is knowledge kept under steering? P@K on cloze sentences."""
