"""What holds for every test: no settings from outside, one compute thread, a repeatable search for examples.

Set before anything else is imported: numerical libraries read the number of threads once. Processes that tests start
inherit all of it.
"""

from __future__ import annotations

import os

for _name in [name for name in os.environ if name.startswith("EDGELOOP_")]:
    del os.environ[_name]  # EDGELOOP__SECTION__KEY overrides every configuration file, so also those of the tests
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from hypothesis import settings  # noqa: E402 - after the environment is in order

settings.register_profile("edgeloop", deadline=None, print_blob=True, derandomize=bool(os.environ.get("CI")))
settings.load_profile("edgeloop")
