"""The store: sessions, their events, sealed values and readings, in SQL."""
