"""What one can ask of the house: one command, one function."""
