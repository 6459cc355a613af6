"""The qualitative examples of the original post, those that failed included."""
