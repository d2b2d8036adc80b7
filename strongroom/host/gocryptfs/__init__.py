"""gocryptfs volumes on disk, whose content does not change while they are open.

directory  opening what a stranger stores
walk       every name of a volume, in clear
stored     one object, opened
reading    verified plaintext out of objects
volume     a volume as a Source
pinned     a volume that has to be what a side manifest says
pinning    the side manifest of a volume
checking   every block and every name of a volume
creating   a new, empty volume
"""
