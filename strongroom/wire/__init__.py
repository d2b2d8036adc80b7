"""Bytes at the edge: the bounded reader, canonical JSON and framing everything else stands on."""
