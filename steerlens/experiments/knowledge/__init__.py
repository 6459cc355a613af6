"""Does the model keep its knowledge under steering? P@K on cloze sentences."""
