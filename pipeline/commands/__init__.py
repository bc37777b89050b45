"""The commands of ``dladiff``: arguments in, text and exit codes out; the work is elsewhere."""
