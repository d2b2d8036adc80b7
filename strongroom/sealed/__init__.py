"""The sealed model format: what a storage owner may hold, and what a reader accepts. Pure.

    header    the clear, authenticated front of a MANIFEST
    keys      model key -> commitment, manifest key, journal key
    paths     names that may appear in a tree, and where its links lead
    manifest  what the tree holds: directories, files, links
    chunks    one object's chunks, sealed and opened by index
    volume    a MANIFEST opened in the order that matters, or made
    journal   what a seal that may be cut leaves of its progress
    changes   what is different between two trees
    index     the files of a tree, for who carries it without the key

The format itself is written down in docs/formats/sealed.md.
"""
