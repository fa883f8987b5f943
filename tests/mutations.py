"""How many spoilt bodies each decoder gets: ten thousand, or as many as ROWSERVE_MUTATIONS says."""

from __future__ import annotations

import os

MUTATIONS = int(os.environ.get("ROWSERVE_MUTATIONS", "10000"))
