"""`harness ...`: the command line beside pytest. The only room that imports typer."""

from harness.cli import calibration
from harness.cli.adopting import card, comment, init
from harness.cli.calibrating import calibrate_command
from harness.cli.comparing import compare
from harness.cli.exporting import export_command
from harness.cli.importing import import_command
from harness.cli.runs import app
from harness.cli.starting import PASSED_ON, demo, run_suites
from harness.cli.timing import time_command
from harness.cli.upgrade import ab_command

__all__ = ["app", "main"]

app.command("run", context_settings=PASSED_ON)(run_suites)
app.command("demo")(demo)
app.command("init")(init)
app.command("card")(card)
app.command("comment")(comment)
app.command("compare")(compare)
app.command("export", context_settings=PASSED_ON)(export_command)
app.command("import")(import_command)
app.command("time", context_settings=PASSED_ON)(time_command)
app.command("calibrate", context_settings=PASSED_ON)(calibrate_command)
app.command("ab", context_settings=PASSED_ON)(ab_command)
app.add_typer(calibration.app, name="calibration")


def main() -> None:
    """Run the command line."""
    app()
