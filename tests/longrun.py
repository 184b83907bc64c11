"""Whether there is time for every case, and not only for some of each kind: `make test-long`."""

import os

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
