"""A key-value server that speaks the Redis protocol: the same server twice, on fibers and on uvloop.

Read in this order:

    protocol        bytes -> requests, replies -> bytes
    glob            the patterns of KEYS
    store           keys, values, expiry; who waits for an element of which list
    pubsub          who listens to which channel
    instance        what one server holds: its data, its clients, its limits
    commands        the command table; `execute(client, request)`
    server_fibers   a connection as a fiber: straight-line code
    server_uvloop   the same with async and await, to compare with
    load            clients that load either server and check every answer
    demo            both servers, loaded in turns, and a table

Everything above the two servers is ordinary Python without I/O. It knows of no event loop, so both run the
same code between "bytes came in" and "bytes go out"; what differs between them is the connection.
"""
