"""The door through which a model provider pushes a model into this guest, before anything is served.

    config        the `receive` credential
    session       whose turn it is, sans-IO
    arrival       one manifest's bytes on their way into a sealed tree
    standing      what is in the place of that tree already
    intake        both, for conversations: providers' words checked, the disk's work in a thread of its own
    conversation  one client's requests
    receiver      the door's life, from its certificate to one accepted model

What it speaks is written down in docs/formats/push.md.
"""
