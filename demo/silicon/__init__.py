"""Simulated silicon: the kernel ABIs of a confidential VM, served by a program whose keys anyone can read.

The reports have the genuine shape and the signatures hold, but under a root that says INSECURE-SIMULATED and
that no default policy accepts. Nothing here is part of an image.
"""
