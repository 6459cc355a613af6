"""Analysis: what steering does inside the model and to the next token."""
