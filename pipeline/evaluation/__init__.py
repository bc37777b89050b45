"""``dladiff evaluate``: attacks on clean and protected photos, measured, kept and shown."""
