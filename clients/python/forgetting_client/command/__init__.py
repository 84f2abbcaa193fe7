"""The command `forgetting`. One file per group of commands; data on stdout, prose on stderr."""


def main() -> None:
    from forgetting_client.command.app import app

    app()
