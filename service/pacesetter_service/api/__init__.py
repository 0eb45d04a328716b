"""The HTTP surface: it parses, calls one use case, and says the answer in JSON."""
