"""`harness ...`: the command line beside pytest. The only room that imports typer."""

from harness.cli.runs import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line."""
    app()
