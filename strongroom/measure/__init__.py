"""Golden values: what a genuine machine must report, computed from the bytes it is made of."""
