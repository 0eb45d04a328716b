"""The pure core: values in, values out; no clock, no input or output, no HTTP, no SQL.

Reading order: `schedules` (laws), `timeline` (which law when), `controllers` (what metrics do),
`spec` (what a user asks for), `session` (the whole state), `decide` and `evolve` (how it moves).
"""
