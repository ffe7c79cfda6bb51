"""The core: fibers, the three verbs and what they stand on. There is no event loop in here."""
