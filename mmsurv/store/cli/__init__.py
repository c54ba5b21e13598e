"""``mmsurv store``: look at, check, fill and copy stores.

Owns the group and its order. Options and printing are in a module per family of commands, the work in the store's own
modules; none of them is imported for a command's help. Another package adds a command by an entry point of the group
``mmsurv.store_commands``, loaded when it is called; its one-line help stands in ``PLUGGED``.
"""

from __future__ import annotations

from importlib.metadata import entry_points

import click

from mmsurv.cli import load_command
from mmsurv.store.cli import check, copy, exchange, look

GROUP = "mmsurv.store_commands"

PLUGGED = {"retry": "Encode the slides again that failed."}

_COMMANDS = (
    look.info, look.list_, check.verify, check.prune, exchange.import_, copy.convert,
)  # fmt: skip


class StoreCommands(click.Group):
    """A group of its own commands, and after them those of other packages."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.commands, *sorted({point.name for point in entry_points(group=GROUP)} - set(self.commands))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.commands:
            return self.commands[cmd_name]
        for point in entry_points(group=GROUP, name=cmd_name):
            return load_command(point)
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [
            (name, self.commands[name].get_short_help_str(90) if name in self.commands else PLUGGED.get(name, ""))
            for name in self.list_commands(ctx)
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=StoreCommands)
def store() -> None:
    """Look at, check, fill and copy feature stores."""


for _command in _COMMANDS:
    store.add_command(_command)
