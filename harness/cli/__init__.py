"""`harness ...`: the command line beside pytest. The only room that imports typer."""

from harness.cli import calibration
from harness.cli.calibrating import calibrate_command
from harness.cli.importing import import_command
from harness.cli.runs import app

__all__ = ["app", "main"]

app.command("import")(import_command)
app.command("calibrate")(calibrate_command)
app.add_typer(calibration.app, name="calibration")


def main() -> None:
    """Run the command line."""
    app()
