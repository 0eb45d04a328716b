"""The HTTP surface: it parses, asks the ledger, and says it in JSON."""
