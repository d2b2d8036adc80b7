"""Container images on disk: encrypted ones opened, and made into a tree that a service runs in."""
