"""What needs torch besides `pacesetter.torch`, which is the door to it."""
