"""`python -m deepexp` is `deepexp`."""

import sys

from deepexp.cli import main

sys.exit(main())
