"""What two or more experiments use."""
