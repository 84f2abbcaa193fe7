"""`python -m forgetting_client` is `forgetting`."""

from forgetting_client.command import main

if __name__ == "__main__":
    main()
