"""`harness ...`: the command line beside pytest. The only room that imports typer."""

from harness.cli import calibration
from harness.cli.importing import import_command
from harness.cli.runs import app
from harness.cli.upgrade import ab_command

__all__ = ["app", "main"]

app.command("import")(import_command)
app.command("ab", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(ab_command)
app.add_typer(calibration.app, name="calibration")


def main() -> None:
    """Run the command line."""
    app()
