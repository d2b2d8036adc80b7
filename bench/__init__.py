"""Figures about Strongroom, each beside what it is to be compared with. Never installed, never part of an image."""
