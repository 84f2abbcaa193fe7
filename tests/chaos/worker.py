"""The real worker process, but for the child that it starts."""

from tests.chaos.child import COMMAND
from worker.__main__ import run_one

if __name__ == "__main__":
    run_one(has_lifeline=True, command=COMMAND)
