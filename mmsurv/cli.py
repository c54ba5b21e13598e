"""The ``mmsurv`` command: finds its commands by entry point and turns errors into exit codes.

Imports click only. A command is a ``mmsurv.commands`` entry point, imported when it is called; its one-line help
for ``mmsurv --help`` stands in ``SUMMARIES``, so that the help loads no stage.
"""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points

import click

from mmsurv import __version__
from mmsurv.errors import ConfigError, MmsurvError

GROUP = "mmsurv.commands"

SUMMARIES = {
    "demo": "The whole path on a small simulated cohort, in minutes; ends with a report.",
    "extract": "Stage 1: encode slides into a feature store.",
    "store": "Look at, check and fill feature stores.",
    "cohort": "Join clinical, RNA and slide tables by id and report what did not join.",
    "train": "Stage 2: fit a survival model on cached features.",
    "sweep": "Fit many configurations in few passes and put them in one table.",
    "evaluate": "Compute a run's predictions and metrics again from the store.",
    "attention": "Write the attention weight of every tile, for any slide of the store.",
    "compare": "Compare runs by a paired bootstrap over the patients they share.",
    "predict": "Predict the patients of another cohort with a run's models.",
    "report": "Write one HTML page about one or more runs.",
}


class LazyCommands(click.Group):
    """A group whose commands are entry points."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        found = {point.name for point in entry_points(group=GROUP)}
        order = list(SUMMARIES)
        return sorted(found, key=lambda name: (order.index(name) if name in order else len(order), name))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for point in entry_points(group=GROUP, name=cmd_name):
            return load_command(point)
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, SUMMARIES.get(name, "")) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def load_command(point: EntryPoint) -> click.Command:
    """The command an entry point names."""
    command = point.load()
    if not isinstance(command, click.Command):
        raise MmsurvError(f"The entry point {point.value} of {point.group} is not a click command.")
    return command


@click.group(cls=LazyCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mmsurv")
def cli() -> None:
    """Survival from whole-slide images and RNA.

    Encode every slide once (extract); then train, evaluate and report on cached features, without touching a slide
    again. Start with `mmsurv demo`.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. Exit codes: 0 done, 1 failed, 2 usage, 130 interrupted."""
    try:
        code = cli.main(args=arguments, prog_name="mmsurv", standalone_mode=False)
    except ConfigError as error:
        _fail(error, ConfigError.exit_code)
    except MmsurvError as error:
        _fail(error, error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        # A full disk, a folder that may not be written: the user's to mend, and a traceback would hide which.
        click.echo(f"Error: {error}. Check the path, its permissions and the space on its disk.", err=True)
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(error: MmsurvError, code: int) -> None:
    click.echo(f"{type(error).__name__}: {error}", err=True)
    sys.exit(code)
