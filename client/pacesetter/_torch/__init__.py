"""The modules that need torch, behind `pacesetter.torch`."""
