"""`make conformance`: the service is held to its OpenAPI document, with a key and without one.

Exit 1 where an answer was not as the document says.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.conformance.run import hold
from tests.conformance.served import served


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--examples", type=int, default=50, help="per operation and phase")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--key", choices=["with", "without", "both"], default="both")
    chosen = parser.parse_args()
    good = True
    ways = {"with": [True], "without": [False], "both": [True, False]}
    for with_key in ways[chosen.key]:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as name, served(Path(name)) as at:
            found = hold(
                at,
                Path(name),
                with_key=with_key,
                max_examples=chosen.examples,
                seed=chosen.seed,
            )
        seconds = time.monotonic() - began
        print(  # noqa: T201
            f"{'with a key' if with_key else 'without a key'}: {found.n_operations} operations, "
            f"{found.n_cases:,} cases, {len(found.failures)} failures, {len(found.errors)} errors "
            f"in {seconds:.0f} s; {', '.join(f'{p} {s}' for p, s in found.phases.items())}",
            flush=True,
        )
        if found.failures or found.errors:
            print(found.said)  # noqa: T201
            good = False
    sys.exit(not good)


if __name__ == "__main__":
    main()
