"""What only reads: nothing here changes a session."""
