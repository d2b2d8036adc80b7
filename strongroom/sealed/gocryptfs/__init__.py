"""The gocryptfs v2 format, as its programs of version 1.3 to 2.6 write it, and a manifest that closes its gaps. Pure.

    config      gocryptfs.conf: what a volume uses, and its master key under a password
    kdf         scrypt and HKDF with the labels of the format
    keys        master key -> a key for names and a key for contents
    eme         the wide-block cipher of names
    names       plain name <-> name on disk
    content     file headers and blocks of 4 KiB; xchacha is one of its ciphers
    batch       many blocks at once, for a reader
    attributes  targets of links, extended attributes
    ciphers     all that a master key gives
    reverse     IVs of a volume that `gocryptfs -reverse` shows
    side        the side manifest: what this tree is, so that nothing of it can be exchanged; side_entries its table

The format authenticates one block at a time. Who stores a volume can put blocks of zeros, older blocks, shorter files
or other files in their places, and no reader of the bare format can tell. The side manifest is our own addition and
written down in docs/formats/gocryptfs.md.
"""
