"""The FUSE kernel protocol, sans-IO: frames in, frames out."""
