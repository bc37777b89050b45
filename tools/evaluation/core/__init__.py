"""The tables of ``docs/efficacy.md``: which trees they compare, and one command that makes them."""
