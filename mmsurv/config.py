"""TOML recipes and the frozen dataclasses they become.

Owns the mapping only: which keys exist is said by the dataclass of each stage, checked here. An unknown key names
the nearest valid one; a value of the wrong type names the key, the type expected and the value found.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Collection, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from mmsurv.errors import ConfigError

T = TypeVar("T")


def from_table(cls: type[T], table: Mapping[str, Any], *, source: str, where: str = "") -> T:
    """Build the dataclass ``cls`` from a (nested) table.

    Args:
        cls: a dataclass whose fields are bool, int, float, str, ``X | None``, ``Literal``, ``tuple[X, ...]``,
            ``dict[str, X]`` or further dataclasses. Its class variable ``BESIDE``, if it has one, names the keys that
            may stand beside its own in a file and are taken out before: messages name them too.
        table: what the recipe says; keys left out keep the dataclass's defaults.
        source: the file or option the table came from, for messages.
        where: dotted path of this table within ``source``.

    Raises:
        ConfigError: unknown key, wrong type, missing key, or a value that ``__post_init__`` refuses (ValueError).
    """
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in table.items():
        path = f"{where}{key}"
        if key not in fields:
            valid = {*fields, *getattr(cls, "BESIDE", ())} - {key}
            raise ConfigError(f"{source}: unknown key {path!r}. {_nearest(key, valid)}")
        values[key] = _convert(hints[key], value, source=source, path=path)
    missing = [
        f"{where}{name}"
        for name, field in fields.items()
        if name not in values and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{source}: missing key {', '.join(map(repr, missing))}.")
    try:
        return cls(**values)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from error


def to_table(config: Any) -> dict[str, Any]:
    """The nested table of a dataclass, without the keys that are None (TOML has no null)."""
    table: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value is None:
            continue
        if dataclasses.is_dataclass(value):
            value = to_table(value)
        elif isinstance(value, tuple):
            value = list(value)
        table[field.name] = value
    return table


def load_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: the file is missing, not UTF-8, or not TOML; the message has the line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}).") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file ({error}).") from error


def dump_toml(table: Mapping[str, Any]) -> str:
    """TOML text of a table."""
    import tomli_w

    return tomli_w.dumps(table)


def recipe_names(package: str) -> list[str]:
    """Names of the recipes shipped in ``package`` (such as ``mmsurv_extract.recipes``)."""
    files = resources.files(package).iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def load_recipe(name_or_path: str, package: str) -> tuple[dict[str, Any], str]:
    """Read a recipe by the name of a shipped one or by path.

    Returns:
        The table, and the name or path it came from, for messages.

    Raises:
        ConfigError: neither a shipped recipe nor a file; the message lists the shipped ones.
    """
    names = recipe_names(package)
    if name_or_path in names:
        text = resources.files(package).joinpath(f"{name_or_path}.toml").read_text(encoding="utf-8")
        return tomllib.loads(text), f"recipe {name_or_path}"
    path = Path(name_or_path)
    if path.is_file():
        return load_toml(path), str(path)
    close = _close(name_or_path, names)
    hint = f"Did you mean {close!r}? " if close else ""
    raise ConfigError(f"{name_or_path!r} is neither a file nor a shipped recipe. {hint}Shipped: {', '.join(names)}.")


def replace(config: T, source: str, **changes: Any) -> T:
    """A copy of a dataclass with command-line options over it; options that are None change nothing."""
    given = {key: value for key, value in changes.items() if value is not None}
    try:
        return dataclasses.replace(config, **given)  # type: ignore[type-var]
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from error


_SHAPES = {tuple: "a list", dict: "a table"}
"""What the file calls them."""


def _nearest(key: str, valid: Collection[str]) -> str:
    close = _close(key, valid)
    return f"Did you mean {close!r}?" if close else f"Valid here: {', '.join(sorted(valid))}."


def _close(key: str, valid: Collection[str]) -> str | None:
    """The valid name that is most like the key, if any is."""
    found = difflib.get_close_matches(key, sorted(valid), n=1, cutoff=0.5)
    return found[0] if found else None


def _convert(hint: Any, value: Any, *, source: str, path: str) -> Any:
    """Check one value against one annotation, converting tables, lists and whole-number floats."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_table(hint, value, source=source, where=f"{path}.")  # type: ignore[arg-type]
    if origin in (typing.Union, types.UnionType):
        options = [argument for argument in arguments if argument is not type(None)]
        for option in options[:-1]:
            try:
                return _convert(option, value, source=source, path=path)
            except ConfigError:
                continue
        return _convert(options[-1], value, source=source, path=path)
    if origin is typing.Literal:
        if value in arguments:
            return value
        choices = ", ".join(map(repr, arguments))
        raise ConfigError(f"{source}: {path} must be one of {choices}, not {value!r}.")
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(arguments[0], item, source=source, path=f"{path}[]") for item in value)
    if origin is dict and isinstance(value, Mapping):
        return {
            str(key): _convert(arguments[1], item, source=source, path=f"{path}.{key}") for key, item in value.items()
        }
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    expected = _SHAPES.get(origin) or getattr(hint, "__name__", str(hint))
    raise ConfigError(f"{source}: {path} must be {expected}, not {value!r}.")
