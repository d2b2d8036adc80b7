"""Processes that answer the kernel: a master that holds every right, and workers that hold none."""
