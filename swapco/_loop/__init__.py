"""The adapter: one asyncio event loop, a subclass of uvloop's, that runs fibers."""
