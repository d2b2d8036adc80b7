"""What a model provider and a guest agree on when a model is pushed into the guest. Pure.

    manifest  what is about to be pushed: every entry, each file by size and SHA-256
    content   the bytes of all its files as one sequence, so that "how far" is one number
    offer     a provider's word for one manifest, over one connection
    answers   what the guest says to it: which bytes are wanted, or that the model was accepted

Everything travels over a connection on which the guest has proved itself. Source: docs/formats/push.md.
"""
