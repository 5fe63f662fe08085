"""The program `longflow`, also as `python -m longflow`."""

import os
import sys


def main() -> int:
    """Run the command line."""
    # Before torch starts its threads: those of OpenMP spin while they wait, and where another program has the other
    # core a training run is then 20 times slower (measured). Asleep, they cost next to nothing on an idle machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from longflow.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
