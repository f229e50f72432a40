"""The full figures take minutes, so they are collected only where they are asked for: `make proofs`."""

import os

collect_ignore_glob = [] if os.environ.get("PLANGATE_PROOFS") == "1" else ["test_*.py"]
