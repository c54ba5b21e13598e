"""The report: one file, safe from its inputs, readable without seeing, the same bytes every time."""

from __future__ import annotations

import dataclasses
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from mmsurv.cohort import CohortOptions
from mmsurv.errors import RunError
from mmsurv_train import level as levels
from mmsurv_train import run as runs
from mmsurv_train import summary
from mmsurv_train.inputs import Sources
from mmsurv_train.recipe import EvaluateSettings, FitSettings, ModelSettings, SplitSettings, TrainRecipe
from mmsurv_train.report import write_report
from mmsurv_train.report.content import risk_groups
from mmsurv_train.report.page import render
from mmsurv_train.report.survival import predicted_curves
from mmsurv_train.run import read_run
from mmsurv_train.train import train

RECIPE = TrainRecipe(
    model=ModelSettings(name="joint"),
    fit=FitSettings(epochs=3, device="cpu"),
    split=SplitSettings(fractions=(0.6, 0.2, 0.2)),
    evaluate=EvaluateSettings(n_bootstrap=20),
)


@pytest.fixture(scope="module")
def trained(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs: joint and rna on one split of the same cases, cv of three folds, seeds of two folds with two networks each,
    wsi on other cases."""
    folder = tmp_path_factory.mktemp("runs")
    cohort = CohortOptions(clinical=str(study / "clinical.csv"), rna=str(study / "rna.csv"))
    sources = Sources(cohort=cohort, store=str(study / "store"), complete_cases=True)
    rna = dataclasses.replace(RECIPE, model=ModelSettings(name="rna"))
    wsi = dataclasses.replace(RECIPE, model=ModelSettings(name="wsi-mean"))
    folds = dataclasses.replace(RECIPE, split=SplitSettings(n_folds=3))
    train(RECIPE, sources, folder / "joint", command="mmsurv train --model joint")
    train(rna, sources, folder / "rna", command="mmsurv train --model rna")
    train(folds, sources, folder / "cv", command="mmsurv train --folds 3")
    ensemble = dataclasses.replace(RECIPE, split=SplitSettings(n_folds=2), fit=FitSettings(epochs=3, n_seeds=2))
    train(ensemble, sources, folder / "seeds", command="mmsurv train --folds 2 --seeds 2")
    train(wsi, dataclasses.replace(sources, complete_cases=False), folder / "wsi", command="mmsurv train --model wsi")
    return folder


class Page(HTMLParser):
    """What a test wants to know of a page."""

    void = frozenset({"meta", "br", "link", "img", "hr"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page(trained: Path, *names: str, notes: tuple[str, ...] = ()) -> str:
    return render([read_run(trained / name) for name in names], title="Models", notes=notes)


def test_the_page_is_one_well_formed_file_that_asks_for_nothing(trained: Path) -> None:
    html = page(trained, "joint", "rna", "cv")
    parsed = Page(html)
    assert parsed.open == []
    assert len(parsed.ids) == len(set(parsed.ids))
    tags = {tag for tag, _ in parsed.tags}
    assert not tags & {"script", "link", "img", "iframe"}
    addresses = [
        value
        for _, attributes in parsed.tags
        for name, value in attributes.items()
        if name in {"src", "href", "xlink:href"}
    ]
    assert all(str(address).startswith("#") for address in addresses)
    assert {str(address)[1:] for address in addresses} <= set(parsed.ids)


def test_every_figure_and_table_has_words_for_those_who_do_not_see_it(trained: Path) -> None:
    parsed = Page(page(trained, "joint", "cv"))
    figures = parsed.of("svg")
    assert len(figures) == 7  # the comparison, and for each run survival, calibration and training curves
    for figure in figures:
        assert figure["role"] == "img"
        assert set(str(figure["aria-labelledby"]).split()) <= set(parsed.ids)
    assert len(parsed.of("caption")) == len(parsed.of("table"))
    assert {attributes.get("scope") for attributes in parsed.of("th")} <= {"col", "row", "colgroup"}
    assert parsed.of("html")[0]["lang"] == "en"


def test_the_same_runs_give_the_same_bytes(trained: Path) -> None:
    assert page(trained, "joint", "cv") == page(trained, "joint", "cv")


def test_the_numbers_are_those_of_the_runs(trained: Path) -> None:
    html = page(trained, "joint", "cv")
    for name, part in (("joint", "test"), ("cv", "out-of-fold")):
        for level in ("case", "wsi"):
            found = read_run(trained / name).metrics["parts"][part][level]
            for estimate in (found["c_index"], found["c_index_ipcw"]):
                assert summary.number(estimate["value"]) in html
                assert summary.interval(estimate) in html
    assert summary.fold_mean(read_run(trained / "cv").metrics, "case") in html


def test_floors_stand_beside_their_model(trained: Path) -> None:
    run = read_run(trained / "joint")
    html = page(trained, "joint")
    own = run.metrics["parts"]["test"]["case"]["c_index"]["value"]
    for name, floor in run.metrics["floors"].items():
        value = floor["c_index"]["value"]
        for cell in (name, f"{value:.3f}", f"{own - value:+.3f}".replace("-", "−")):
            assert f"<td>{cell}" in html


def test_seeds_stand_beside_their_ensemble(trained: Path) -> None:
    html, metrics = page(trained, "seeds", "cv"), read_run(trained / "seeds").metrics
    assert "out-of-fold, 2 folds, ensemble of 2 seeds" in html
    assert html.count("seeds alone, mean ± sd</th>") == 2
    for level in ("case", "wsi"):
        assert f"<td>{summary.seed_mean(metrics, level)}<br><small>[{summary.seed_interval(metrics, level)}]" in html
    assert "<td>–<br><small>[–]</small></td>" in html  # one network has no spread
    assert "seeds alone" not in page(trained, "cv", "joint")


def test_every_network_of_every_fold_has_its_training_curves(trained: Path) -> None:
    for name, networks in (("joint", 1), ("cv", 3), ("seeds", 4)):
        assert f"loss of {networks} fitted network(s) by epoch" in page(trained, name)


def test_the_page_says_how_features_were_read(trained: Path) -> None:
    reading = read_run(trained / "joint").provenance["features"]["reading"]
    assert f"Tile features: {reading}, 0.00 GB." in page(trained, "joint")
    assert "Tile features: " not in page(trained, "rna")


def test_risk_groups_are_those_of_the_log_rank_test(trained: Path) -> None:
    for name, part in (("joint", "test"), ("cv", "out-of-fold")):
        run = read_run(trained / name)
        cases, high = risk_groups(run)
        groups = run.metrics["parts"][part]["case"]["risk_groups"]
        assert (int(high.sum()), int(np.sum(~high))) == (groups["n_high"], groups["n_low"])
        assert int(cases["event"][high].sum()) == groups["events_high"]


def test_what_comes_from_outside_is_escaped(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained / "joint", folder)
    provenance = json.loads((folder / runs.PROVENANCE).read_text())
    provenance["command"] = "mmsurv train <script>alert(1)</script>"
    provenance["store_recipe"]["encoder"]["name"] = "<b>net</b>"
    runs.write_json(folder / runs.PROVENANCE, provenance)
    html = render([read_run(folder)], title="<i>Models</i>", notes=['1 < 2 & "so"'])
    assert "<script" not in html
    assert "<b>net" not in html
    assert "<i>Models" not in html
    assert "1 &lt; 2 &amp;" in html


def test_without_anything_to_warn_of_there_is_no_banner(trained: Path) -> None:
    assert "Read this first" not in page(trained, "joint", "rna")


def test_notes_and_random_weights_stand_in_the_banner(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained / "joint", folder)
    provenance = json.loads((folder / runs.PROVENANCE).read_text())
    provenance["store_recipe"]["encoder"]["weights"] = "random"
    runs.write_json(folder / runs.PROVENANCE, provenance)
    html = render([read_run(folder)], title="Models", notes=["The cohort is simulated."])
    banner = html[html.index("Read this first") : html.index("<main>")]
    assert "The cohort is simulated." in banner
    assert "weights are random" in banner


def test_runs_on_other_patients_are_not_to_be_compared(trained: Path) -> None:
    assert "not measured on the same patients" in page(trained, "joint", "wsi")
    assert "their splits differ" in page(trained, "joint", "cv")


def test_two_runs_of_one_model_are_told_apart(trained: Path) -> None:
    html = page(trained, "joint", "cv", "rna")
    assert "joint (joint)" in html
    assert "joint (cv)" in html
    assert "rna (rna)" not in html


def test_a_dollar_in_the_name_of_a_run_is_no_formula(trained: Path, tmp_path: Path) -> None:
    for name in (r"a$\frac$", "b$x^2$"):
        shutil.copytree(trained / "joint", tmp_path / name)
    html = page(tmp_path, r"a$\frac$", "b$x^2$")
    assert html.count(r"joint (a$\frac$)</text>") == 1
    assert html.count("joint (b$x^2$)</text>") == 1


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (runs.METRICS, lambda _: {}, r"metrics\.json: the key model is missing"),
        (runs.METRICS, lambda found: {**found, "parts": {}}, r"the key parts\.test\.wsi\.n is missing"),
        (runs.METRICS, lambda found: {**found, "seeds": {"seeds": []}}, r"seeds\.seeds must be a list such as 0, 1, 2"),
        (runs.METRICS, lambda found: {**found, "risk_cut": None}, "risk_cut must be a number, not None"),
        (runs.METRICS, lambda found: {**found, "strata": {}}, "strata must be a list of tables"),
        (runs.PROVENANCE, lambda _: {}, r"provenance\.json: the key made is missing"),
        (runs.PROVENANCE, lambda found: {**found, "store_recipe": [1]}, "store_recipe must be a table"),
    ],
)
def test_a_damaged_run_is_named_with_file_and_key(trained: Path, tmp_path: Path, file, change, message) -> None:
    shutil.copytree(trained / "joint", tmp_path / "run")
    path = tmp_path / "run" / file
    runs.write_json(path, change(json.loads(path.read_text())))
    with pytest.raises(RunError, match=message):
        page(tmp_path, "run")


@pytest.mark.parametrize("file", [runs.PREDICTIONS, runs.CASE_PREDICTIONS, runs.HISTORY, runs.BASELINE])
def test_a_table_without_its_columns_is_named(trained: Path, tmp_path: Path, file: str) -> None:
    shutil.copytree(trained / "joint", tmp_path / "run")
    (tmp_path / "run" / file).write_text("nonsense\n1\n")
    with pytest.raises(RunError, match=rf"{file}: the column .* is missing"):
        page(tmp_path, "run")


def test_the_page_says_how_to_do_it_again(trained: Path) -> None:
    html = page(trained, "joint")
    assert "mmsurv train --model joint" in html
    assert f"mmsurv evaluate {trained / 'joint'}" in html


def test_what_is_not_defined_is_a_dash_with_its_reason(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained / "joint", folder)
    metrics = json.loads((folder / runs.METRICS).read_text())
    case = metrics["parts"]["test"]["case"]
    case["c_index"] = {"value": None, "low": None, "high": None, "reason": "no comparable pair: no events"}
    case["risk_groups"]["log_rank"] = {"chi2": None, "p": None, "reason": "no events"}
    runs.write_json(folder / runs.METRICS, metrics)
    html = render([read_run(folder)], title="Models")
    assert "joint, case-level C-index: no comparable pair: no events" in html
    assert "log-rank p is not defined" in html


def test_predicted_survival_stands_beside_that_of_no_model(trained: Path) -> None:
    html = page(trained, "joint", "cv")
    assert html.count("<h3>joint (cv)</h3>") >= 2  # its curves, its calibration
    assert "no model (Kaplan–Meier)" in html
    for name in ("joint", "cv"):
        run = read_run(trained / name)
        part = "out-of-fold" if name == "cv" else "test"
        brier = run.metrics["parts"][part]["case"]["integrated_brier"]
        assert f"<td>{summary.number(brier['value'])}<br>" in html
    assert 'id="strata"' not in html


def test_predicted_curves_are_the_means_of_the_survival_that_the_run_holds(trained: Path) -> None:
    for name, part in (("joint", "test"), ("cv", "out-of-fold")):
        run = read_run(trained / name)
        cases, high = risk_groups(run)
        lines = predicted_curves(run, cases, high)
        table = run.survival[run.survival["part"] == part].set_index("case_id").loc[cases["case_id"]]
        for line, group in zip(lines, (~high, high), strict=True):
            place = int(np.searchsorted(line.time, 12.0, side="right")) - 1  # a step function: the last step before
            assert line.survival[0] == 1.0
            assert line.survival[place] == pytest.approx(table["survival_12"].to_numpy()[group].mean(), abs=0.03)


def test_groups_of_patients_are_shown_apart(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "joint", tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / runs.METRICS).read_text())
    case = metrics["parts"]["test"]["case"]
    few = levels.without("3 events, fewer than 10", read_run(trained / "joint").predictions.cases, RECIPE.evaluate)
    groups = [{"name": "GBM", **few}, {"name": "LGG", **case}]
    metrics["strata"] = [{"column": "oncotree_code", "by": "GBM and LGG", "n_without": 0, "groups": groups}]
    runs.write_json(tmp_path / "run" / runs.METRICS, metrics)
    html = page(tmp_path, "run")
    assert '<th scope="row">oncotree_code: LGG</th>' in html
    assert "joint, oncotree_code GBM: 3 events, fewer than 10" in html


def test_the_file_is_written_at_once_and_replaced(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "report.html"
    for title in ("First", "Second"):
        write_report([read_run(trained / "joint")], out, title=title)
    assert "<title>Second</title>" in out.read_text(encoding="utf-8")
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]


def test_another_file_is_not_replaced(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.html").write_text("<p>years of work</p>")
    with pytest.raises(RunError, match=r"thesis\.html is there already, and no report of mmsurv"):
        write_report([read_run(trained / "joint")], tmp_path / "thesis.html", title="")
    assert (tmp_path / "thesis.html").read_text() == "<p>years of work</p>"


def test_a_report_of_nothing_or_to_nowhere_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="at least one run"):
        write_report([], tmp_path / "report.html", title="")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        write_report([read_run(trained / "joint")], tmp_path / "file" / "report.html", title="")


@pytest.mark.parametrize(("p", "words"), [(None, "–"), (3e-9, "< 0.0001"), (0.00042, "0.0004"), (0.0314, "0.031")])
def test_p_values_keep_the_digits_that_matter(p: float | None, words: str) -> None:
    assert summary.p_value(p) == words
