"""The command `rmgl`."""


def main() -> None:
    """Runs the subcommand that the command line names."""
    raise NotImplementedError
