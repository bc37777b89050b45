"""Methods of other papers on our primitives, to protect with and to compare at equal budget.

Each is a composition of a few lines: the loss, what is trained when, and nothing else. What all
share (budget map, view, start, step, counting) lies in ``person`` and ``baseline``. ``by_name``
lists them.
"""
