"""The command line; one file a verb."""

import sys
import warnings


def main() -> None:
    """Entry point of `boundlab`."""
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)  # torch.export warns of its own code
    try:
        from boundlab.cli.app import app  # here, so that Ctrl-C while verbs are loaded ends in a sentence too

        app()
    except KeyboardInterrupt:
        print("boundlab: interrupted.", file=sys.stderr)
        raise SystemExit(130) from None
