"""`python -m longflow` is the command line."""

import sys

from longflow.cli import main

sys.exit(main())
