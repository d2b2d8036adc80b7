"""Daemons that keep running beside the engine: one process each, and none imports another."""
