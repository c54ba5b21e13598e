"""Recipes: what is wrong with one is said by key."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import pytest

from mmsurv import config
from mmsurv.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.1
    mode: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ValueError(f"rate must not be negative, not {self.rate}.")


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    inner: Inner = field(default_factory=Inner)
    limit: int | None = None
    genes: tuple[str, ...] = ()
    flag: bool = False
    sizes: dict[str, int] = field(default_factory=dict)


def build(table):
    return config.from_table(Outer, table, source="x.toml")


def test_tables_become_dataclasses() -> None:
    made = build({"name": "n", "inner": {"rate": 1, "mode": "b"}, "genes": ["EGFR"], "limit": 3})
    assert made == Outer(name="n", inner=Inner(rate=1.0, mode="b"), genes=("EGFR",), limit=3)
    assert isinstance(made.inner.rate, float)


def test_a_config_survives_toml(tmp_path) -> None:
    made = build({"name": 'ü "quoted"', "inner": {"rate": 1e-3}, "genes": ["a", "b"]})
    path = tmp_path / "config.toml"
    path.write_text(config.dump_toml(config.to_table(made)), encoding="utf-8")
    assert config.from_table(Outer, config.load_toml(path), source=str(path)) == made


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": "n", "iner": {}}, r"x\.toml: unknown key 'iner'. Did you mean 'inner'\?"),
        ({"name": "n", "inner": {"raet": 1}}, r"unknown key 'inner\.raet'. Did you mean 'rate'\?"),
        ({"name": "n", "zzz": 1}, "Valid here: flag, genes, inner, limit, name, sizes"),
        ({"name": "n", "genes": "all"}, r"genes must be a list, not 'all'"),
        ({"name": "n", "sizes": 3}, "sizes must be a table, not 3"),
        ({}, "missing key 'name'"),
        ({"name": 3}, "name must be str, not 3"),
        ({"name": "n", "limit": "many"}, "limit must be int, not 'many'"),
        ({"name": "n", "limit": True}, "limit must be int, not True"),
        ({"name": "n", "flag": 1}, "flag must be bool, not 1"),
        ({"name": "n", "genes": ["a", 3]}, r"genes\[\] must be str, not 3"),
        ({"name": "n", "inner": {"mode": "c"}}, r"inner\.mode must be one of 'a', 'b', not 'c'"),
        ({"name": "n", "inner": {"rate": -1}}, "rate must not be negative"),
        ({"name": "n", "inner": 3}, "inner must be Inner, not 3"),
    ],
)
def test_a_wrong_key_or_value_is_named(table, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(table)


@dataclass(frozen=True, kw_only=True)
class WithOthers:
    BESIDE: ClassVar[tuple[str, ...]] = ("grid", "rows")
    fit: Inner = field(default_factory=Inner)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("grids", r"unknown key 'grids'. Did you mean 'grid'\?"),
        ("zzz", "Valid here: fit, grid, rows"),
        ("grid", "unknown key 'grid'. Valid here: fit, rows"),  # where it may not stand: in a row
    ],
)
def test_keys_that_stand_beside_a_dataclasss_own_are_named_as_well(key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.from_table(WithOthers, {key: {}}, source="x.toml")


def test_an_unknown_recipe_names_the_shipped_ones_once() -> None:
    with pytest.raises(
        ConfigError, match=r"^'zzz' is neither a file nor a shipped recipe\. Shipped: abmil, bag-size, "
    ):
        config.load_recipe("zzz", "mmsurv_train.recipes")
    with pytest.raises(ConfigError, match=r"Did you mean 'default'\? Shipped: abmil, bag-size, "):
        config.load_recipe("defalt", "mmsurv_train.recipes")


def test_an_option_that_was_not_given_changes_nothing() -> None:
    inner = Inner(rate=0.5)
    assert config.replace(inner, "options", rate=None, mode="b") == Inner(rate=0.5, mode="b")
    with pytest.raises(ConfigError, match="options: rate must not be negative"):
        config.replace(inner, "options", rate=-1.0)


def test_files_that_are_no_toml_are_named(tmp_path) -> None:
    (tmp_path / "a.toml").write_text("x = = 1")
    with pytest.raises(ConfigError, match=r"a\.toml: not a TOML file .*line 1"):
        config.load_toml(tmp_path / "a.toml")
    (tmp_path / "b.toml").write_bytes(b"x = '\xff'")
    with pytest.raises(ConfigError, match="not a TOML file"):
        config.load_toml(tmp_path / "b.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load_toml(tmp_path / "c.toml")


@pytest.mark.parametrize("package", ["mmsurv_extract.recipes", "mmsurv_train.recipes"])
def test_recipes_are_found_by_name_and_by_path(package: str, tmp_path) -> None:
    names = config.recipe_names(package)
    assert names
    for name in names:
        table, source = config.load_recipe(name, package)
        assert table
        assert source == f"recipe {name}"
    (tmp_path / "mine.toml").write_text("x = 1")
    assert config.load_recipe(str(tmp_path / "mine.toml"), package)[0] == {"x": 1}
    with pytest.raises(ConfigError, match="neither a file nor a shipped recipe"):
        config.load_recipe("no-such-recipe", package)
