"""The HTTP interface: it parses a call, calls one use case, and answers in JSON."""
