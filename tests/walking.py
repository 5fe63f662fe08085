"""How the suites find what they walk."""


def leaves(cls):
    """Yield every subclass that can be instantiated, however deep."""
    for sub in cls.__subclasses__():
        if not getattr(sub, "__abstractmethods__", None):
            yield sub
        yield from leaves(sub)
