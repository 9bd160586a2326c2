"""``python -m fairdiff_lib.studies.proof``: the verdicts in equivalent blur alone.

The other situations, some tens of thousands of audits, are left as they are. A run that was
interrupted goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fairdiff_lib.studies.proof import prove_decisions
from fairdiff_lib.study import Study


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate what is missing, and write both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="quick", metavar="P")
    parser.add_argument("--processes", type=int, default=0, metavar="N", help="all without")
    for root in ("runs", "figures"):
        parser.add_argument(f"--{root}-root", metavar="DIR", default=argparse.SUPPRESS)
    chosen = vars(parser.parse_args(arguments))
    processes = chosen.pop("processes")
    study = Study.open(**chosen)
    made = prove_decisions(study, processes)
    made.publish(study)
    print(f"{made.judged['passed'].sum()} of {len(made.judged)} checks pass")
    return 0


if __name__ == "__main__":
    sys.exit(main())
