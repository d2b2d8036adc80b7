"""Encrypted volumes as file systems, over the kernel's FUSE protocol.

config      the volume credential
opening     from it and the key to an opened volume, of whichever format
protocol/   frames of the kernel's protocol: requests in, replies and notices out
still/      a volume that never changes: its inode table, and what each request is answered
live/       one that does
device      /dev/fuse: greet the kernel, move frames, clone, register backing files
mounting    mount, unmount, clear what a killed daemon left
workers/    a master that holds every right, workers that hold none, and what outlives them all
resident/   files decrypted ahead into memory that the kernel then reads by itself
serving     a still volume, set up and taken down in order
"""
