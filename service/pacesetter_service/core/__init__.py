"""The pure core: values in, values out; no clock, no input or output, no HTTP, no SQL.

Reading order: `schedules` (laws), `timeline` (which law governs which steps), `controllers` (rules
that react to metrics), `spec` (what a user asks for), `session` (the whole state), `decide` and
`evolve` (how the state changes).
"""
