"""The inside of ``swapco.streams``: reader, writer, server."""
