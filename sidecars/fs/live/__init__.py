"""A file system that changes while it is mounted: operations classes of fusepy's shape, and two front ends for them.

operations   what a file system does, one method for each thing asked
volume       a gocryptfs volume as such a class: open files; tree: names and attributes
directories  names on disk, descriptors kept open      files, contents   plain bytes over sealed blocks
intents      what is being written, so that a killed daemon leaves nothing half done
troubles     what the store refuses for a time           reports  what stays a failure, each said once
still        a volume that never changes as such a class
dispatcher   the kernel's requests to its methods, with nodes, gate, listings, changes
server       threads on /dev/fuse: the raw front end   mounted  it all together, as a context
portable     libfuse through mfusepy: the other front end
serving      from the volume's configuration to a mount
"""

from sidecars.fs.live.serving import serve

__all__ = ["serve"]
