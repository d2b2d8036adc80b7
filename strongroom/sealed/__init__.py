"""The sealed model format: what a storage owner may hold, and what a reader accepts. Pure.

    header    the clear, authenticated front of a MANIFEST
    keys      model key -> commitment, manifest key, one key per file
    paths     names that may appear in a tree, and where its links lead
    manifest  what the tree holds: directories, files, links
    chunks    one object's chunks, sealed and opened by index
    volume    a MANIFEST opened in the order that matters, or made

The format itself is written down in docs/formats/sealed.md.
"""
