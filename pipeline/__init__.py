"""Photos in, protected photos out: storage, cluster and command line around ``dladiff``."""
