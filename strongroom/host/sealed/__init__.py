"""Sealed models on this machine's disks: made, read, checked, opened again, put under another key."""
