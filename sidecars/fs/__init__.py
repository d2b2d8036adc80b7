"""The sealed model as a read-only file system, over the kernel's FUSE protocol.

protocol    frames of the protocol: requests in, replies out
tree        the inode table, built once from the manifest
operations  what each request is answered: bytes, a refusal, or a range to read
reading     the way of a chunk: load, open, slice
mounting    mount, unmount, clear what a killed daemon left
device      /dev/fuse: greet the kernel, then answer it from several threads
config      the volume credential
"""
