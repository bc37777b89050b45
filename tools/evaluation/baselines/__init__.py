"""Methods of others and controls on our primitives, to compare with at equal budget and cost.

Each is a composition of a few lines: the loss, what is trained when, and nothing else. What all
share (budget map, view, start, step, counting) lies in ``person`` and ``baseline``.
"""
