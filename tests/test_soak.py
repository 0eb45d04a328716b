"""What a soak finds, and a soak of twenty seconds; `soak.py` has the hour."""
