"""The command line; one file a verb."""


def main() -> None:
    """Entry point of `boundlab`."""
    raise SystemExit(2)
