"""What the subjects are called."""

from typing import Final

RAISED: Final = " ra8M"  # behind a name: with the read-ahead of its mount raised by root

PLAIN: Final = "plain files"
PASSTHROUGH: Final = "passthrough"
SPLICE: Final = "passthrough splice"
DEBIAN: Final = "gocryptfs-debian"
DEBIAN_RAISED: Final = DEBIAN + RAISED
NEWEST: Final = "gocryptfs-newest"
NEWEST_RAISED: Final = NEWEST + RAISED
SECUREFS: Final = "securefs"
RCLONE: Final = "rclone crypt"
NULL: Final = "ours, no cipher"
STREAM: Final = "ours, stream"
COLD: Final = "ours, resident, cold"
WARM: Final = "ours, resident, decrypted"
GOCRYPTFS: Final = "ours, gocryptfs format"
GOCRYPTFS_COLD: Final = "ours, gocryptfs format, resident"
GOCRYPTFS_LIVE: Final = "ours, gocryptfs format, writable"

FUSE_IN_C: Final = (PASSTHROUGH, SPLICE)
EITHER: Final = (DEBIAN, DEBIAN_RAISED, NEWEST, NEWEST_RAISED)
OURS: Final = (STREAM, COLD, WARM, GOCRYPTFS, GOCRYPTFS_COLD, GOCRYPTFS_LIVE)
