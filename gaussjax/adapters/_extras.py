"""The sentence for a library that is not installed."""


def missing(extra: str, error: ImportError) -> ImportError:
    """What to raise in place of `error`, which an import of the library raised."""
    return ImportError(
        f"gaussjax.adapters.{extra} needs a library: pip install 'gaussjax[{extra}]' ({error})."
    )
