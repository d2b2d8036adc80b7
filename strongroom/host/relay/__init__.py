"""Plain HTTP on this machine's loopback, carried to a server that proved itself: what `strongroom connect` is.

listener   speaks HTTP/1.1 with local clients, and knows which of them to refuse
carrying   one request and its answer, in a thread: verified before it leaves, its receipt checked before it is whole
pool       connections that were verified, none of them for too long
"""
