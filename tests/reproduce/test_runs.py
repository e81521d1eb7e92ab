"""Tables and pictures of trained networks: runs are kept and found again, and what pictures show is true of the networks."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import boundlab as bl
from boundlab.cli.app import app
from boundlab.data.examples import Examples
from boundlab.errors import DataError, SpecError
from boundlab.evaluate import evaluate
from boundlab.reports.figure import save
from boundlab.reports.tables import figure_of
from boundlab.reports.trained import of_curves, of_lengths, of_planes, of_steps, of_tightness, of_trained
from boundlab.reproduce.fusion import METHODS, StepRow, step_row
from boundlab.reproduce.outer import corners, curve, plane, translations
from boundlab.reproduce.published_training import BCP_2, CROWN_IBP, CROWN_IBP_2, LIRPA_2, LIRPA_3
from boundlab.reproduce.trained import (
    TABLES,
    VARIANTS,
    Effort,
    found_lines,
    lines_of,
    run_of,
    trained_lines,
    with_length,
)
from boundlab.train.batch import Threat
from boundlab.train.recipe import parsed, recipe
from boundlab.train.regularisers import initialise_as_bert
from boundlab.train.results import Finished, read_run, runs_below

SMALL = """
title = "a test"
source = "boundlab"
network = "mlp-b"
data = "digits"
eps = 0.05
epochs = 8
batch = 64
examples = 150
validation = 0.0
rate = { first = 5e-3, drops = [6], factor = 0.2 }
ramp = { start = 1, end = 5 }
[method.ibp]
"""
SHORT = Effort(epochs=2, images=5)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One finished run, and what was said of it."""
    said, out = [], tmp_path_factory.mktemp("runs")
    return run_of("digits, pure", SHORT.of(parsed(SMALL, "test")), None, out, SHORT, said.append), said, out


@pytest.fixture(scope="module")
def network():
    """A random network of two hidden layers on eight numbers, and examples for it."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 3))
    x = torch.rand(6, 8)
    return bl.capture(net, x[:2]).detached(), Examples(x, net(x).argmax(1))


def test_published_figures_are_in_their_order():
    for family in CROWN_IBP_2.values():
        assert list(family.verified) == sorted(family.verified)
        assert all(clean < verified for clean, verified in zip(family.clean, family.verified, strict=True))
    assert len(CROWN_IBP_2) == 4 * 2 * (4 + 1 + 2)
    assert all(row.clean > row.attacked > row.verified for row in BCP_2.values())
    assert all(row.clean < row.attacked < row.verified for row in LIRPA_2.values())
    for cost in LIRPA_3.values():
        assert all(cost.natural[place] < cost.ibp[place] < cost.fused[place] for place in (0, 1))
        assert cost.unfused is None or all(cost.fused[place] < cost.unfused[place] for place in (0, 1))


def test_a_run_that_is_finished_is_read_and_not_run_again(runs):
    run, said, out = runs
    assert len(said) == run.epochs == 2 and run.examples == 5 and "epoch 2 of 2" in said[-1]
    again = []
    assert run_of("digits, pure", run.recipe, None, out, SHORT, again.append) == run and not again
    with pytest.raises(SpecError, match="other settings"):
        run_of("digits, pure", parsed(SMALL, "test"), None, out, SHORT, again.append)
    for images in (4, 6, None):
        with pytest.raises(SpecError, match=r"other test examples \(5\)"):
            run_of("digits, pure", run.recipe, None, out, replace(SHORT, images=images), again.append)
    assert runs_below(out) == [read_run(run.folder)] == [run] and run.network.exists()
    (out / "broken").mkdir()
    (out / "broken" / "result.json").write_text("{}")
    with pytest.raises(DataError, match=r"broken.result\.json' is no summary"):
        runs_below(out)
    (out / "broken" / "result.json").unlink()
    with pytest.raises(DataError, match="no finished run below"):
        runs_below(out / "broken")


@pytest.mark.parametrize("change", [{"errors": {"clean": 7.0}}, {"errors": {"clean": "nan"}}, {"history": 3},
                                    {"settings": parsed(SMALL, "test").model_dump(mode="json") | {"averaging": {"start": -1}}}])
def test_a_damaged_summary_is_none(runs, tmp_path, change):
    held = json.loads((runs[0].folder / "result.json").read_text())
    (tmp_path / "result.json").write_text(json.dumps(held | change))
    with pytest.raises(DataError, match=r"result\.json' is no summary of a run"):
        read_run(tmp_path)


def test_a_run_without_the_error_of_a_table_is_refused(runs):
    with pytest.raises(DataError, match=r"lacks the error 'verified, IBP'"):
        TABLES["crown-ibp-2"].line(replace(runs[0], errors={"clean": 0.1, "attacked": 0.2}))


def test_what_would_be_no_row_is_not_trained(tmp_path):
    table, said = TABLES["crown-ibp-2"], []
    assert table.row(recipe("bcp-mnist-small")) is None and TABLES["bcp-2"].row(recipe("gloro-mnist-small")) is None
    with pytest.raises(SpecError, match="'bcp-mnist-small, Pure-IBP' would be no row"):
        trained_lines(table, table.planned(["bcp-mnist-small"]), None, tmp_path, SHORT, said.append)
    assert not said and not list(tmp_path.iterdir())


def test_a_shorter_recipe_has_its_times_in_proportion():
    asked = recipe("mnist-a-short")
    short = asked.shortened(3)
    assert short.epochs == 3 and short.ramp.end / 3 == asked.ramp.end / 12 and short.rate.drops == (2.25, 2.75)
    assert short.plan().ramp.end < 3 and asked.shortened(12) == asked
    assert with_length(asked, 0.5).ramp.end == 7 and with_length(asked, 5).ramp.end == 11


@pytest.mark.parametrize("table", ["crown-ibp-2", "lirpa-2"])
def test_a_run_as_a_line_of_a_table(runs, table, tmp_path):
    run = runs[0]
    (line,) = found_lines(TABLES[table], runs[2])
    assert line.ours["verified"] == 100 * run.errors["verified, IBP"] >= line.ours["attacked"] >= line.ours["clean"]
    found = of_trained(TABLES[table], [line])
    assert all(len(row) == len(found.columns) for row in found.rows) and not line.published
    save(figure_of(found.panels), tmp_path / "bars.svg")
    with pytest.raises(SpecError, match="none of the 1 runs"):
        found_lines(TABLES["bcp-2"], runs[2])


def finished(name, method, folder):
    """A run that was not carried out, with errors of half of all examples."""
    asked = recipe(name).model_copy(update={"method": method} if method else {})
    proofs = ("IBP", "BCP", "LMT", "CROWN-BCP", "Fast-Lin")
    errors = {"clean": 0.1, "attacked": 0.2, **{f"verified, {proof}": 0.5 for proof in proofs}}
    return Finished(folder, name, asked, errors, asked.epochs, 10, 1.0)


def test_lines_stand_beside_what_is_published_for_them(tmp_path):
    for method, table in VARIANTS.items():
        line = TABLES["crown-ibp-2"].line(finished("crown-ibp-mnist-a-0.3", table, tmp_path))
        known = CROWN_IBP_2["mnist", 0.3, "small models", method]
        assert line.labels[-1] == method and line.published == {"clean": known.clean, "verified": known.verified}
    assert TABLES["crown-ibp-2"].line(finished("crown-ibp-cifar-dm-large-8", VARIANTS[CROWN_IBP], tmp_path)) is None
    runs = [finished(name, None, tmp_path) for name in ("bcp-mnist-4c3f-1.58", "lmt-mnist-4c3f-1.58", "cap-mnist-4c3f-1.58")]
    lines = lines_of(TABLES["bcp-2"], [*runs, finished("mnist-a-short", None, tmp_path)])
    assert [(line.labels[3], line.published["verified"]) for line in lines] == [
        ("BCP", (47.95,)), ("CAP", (43.95,)), ("LMT", (40.55,))]
    assert all(line.ours == {"clean": 90.0, "attacked": 80.0, "verified": 50.0} for line in lines)
    (line,) = lines_of(TABLES["lirpa-2"], [finished("loss-fusion-cifar-cnn7-8", None, tmp_path)])
    assert line.published["verified"] == (66.62,) and line.about == "CNN-7+BN"


def test_every_planned_run_is_a_line_of_its_table(tmp_path):
    for name, table in TABLES.items():
        planned = table.planned(())
        assert planned and len({asked.model_dump_json() for asked in planned.values()}) == len(planned), name
        errors = {"clean": 0.1, "attacked": 0.2, **{f"verified, {proof}": 0.5 for proof in ("IBP", "BCP", "LMT", "Fast-Lin")}}
        made = [Finished(tmp_path, title, asked, errors, 1, 10, 1.0) for title, asked in planned.items()]
        assert len(lines_of(table, made)) == len(made), name
        assert all(line.published or line.labels[3] == "IBP" for line in lines_of(table, made)), name


def test_verified_error_by_length_of_the_ramp(tmp_path):
    table, lines = TABLES["crown-ibp-figure-3"], []
    for net in "ab":
        for title, asked in table.planned(["mnist-a-short"]).items():
            other = asked.model_copy(update={"network": f"crown-ibp-{net}-mnist"})
            share = {"a": 0.1, "b": 0.3}[net]
            errors = {"clean": 0, "attacked": 0, "verified, IBP": share}
            lines.append(table.line(Finished(tmp_path, title, other, errors, 1, 1, 1)))
    found = of_lengths(lines)
    assert len(found.rows) == 3 * 4 and {row[3:] for row in found.rows} == {("2", "10.00", "20.00", "30.00")}
    save(found.figures[""], tmp_path / "lengths.svg")
    assert "epochs in which eps grows" in (tmp_path / "lengths.svg").read_text()


def test_all_logits_lie_in_the_outer_regions_and_behind_the_proven_margins(network, tmp_path):
    model, data = network
    found = plane(model, data, 1, 0.2, directions=24)
    label, other = found.classes
    points = torch.cat([found.samples, found.center[None], found.found[None]]).double()
    for name, polygon in found.regions.items():
        sides = polygon.roll(-1, 0) - polygon
        inward = torch.stack([-sides[:, 1], sides[:, 0]], 1)
        assert ((points[:, None] - polygon) * inward).sum(-1).min() > -1e-5, name
        assert (points[:, 0] - points[:, 1]).min() >= found.margins[name] - 1e-5
    assert found.margins["BCP"] >= found.margins["LMT"] - 1e-6 and label == int(data.labels[1]) != other
    drawn = of_planes({"a network": found})
    assert len(drawn.rows[0]) == len(drawn.columns)
    save(drawn.figures[""], tmp_path / "planes.svg")


def test_corners_are_those_of_what_the_lines_enclose():
    draw = torch.Generator().manual_seed(0)
    angles = torch.linspace(0, 2 * math.pi, 41, dtype=torch.float64)[:-1]
    ways = torch.stack([angles.cos(), angles.sin()], 1)
    lower = -1 - torch.rand(40, generator=draw, dtype=torch.float64)
    polygon = corners(ways, lower)
    assert (polygon @ ways.T >= lower - 1e-9).all()
    inside = 4 * torch.rand(4000, 2, generator=draw, dtype=torch.float64) - 2
    held = (inside @ ways.T >= lower).all(1)
    sides = polygon.roll(-1, 0) - polygon
    inward = torch.stack([-sides[:, 1], sides[:, 0]], 1)
    assert 0 < held.sum() < 4000 and torch.equal(held, (((inside[:, None] - polygon) * inward).sum(-1) >= 0).all(1))


def test_the_plane_of_a_network_that_always_says_the_same_is_nearly_a_point(network):
    _, data = network
    silent = nn.Sequential(nn.Linear(data.x.shape[1], 3), nn.ReLU())
    nn.init.zeros_(silent[0].weight)
    with torch.no_grad():
        silent[0].bias.copy_(torch.tensor([0.1, 0.7, 0.3]))
    found = plane(bl.capture(silent, data.x[:1]).detached(), data, 0, 0.2)
    assert all(len(region) > 2 and (region - found.center).abs().max() < 1e-4 for region in found.regions.values())


def test_translations_are_the_same_for_all_by_the_ball_and_no_larger_with_the_box(network, tmp_path):
    model, data = network
    ball, both = (translations(model, data.x, 0.2, method) for method in (bl.LMT(), bl.BCP()))
    torch.testing.assert_close(ball, ball[:1].expand(len(ball)), rtol=1e-4, atol=1e-6)
    assert (both <= ball + 1e-6).all() and (both > 0).all()
    near = data.x + 0.2 * nn.functional.normalize(torch.randn(200, *data.x.shape), dim=2)
    eye = torch.eye(3)
    pairs = (eye[:, None] - eye)[~torch.eye(3, dtype=torch.bool)]
    at, moved = (evaluate(model, {model.graph.inputs[0].name: some.flatten(0, -2)}).reshape(*some.shape[:-1], 3) @ pairs.T
                 for some in (data.x, near))
    assert ((at - moved).amax(0).mean(1) <= both + 1e-5).all()
    drawn = of_tightness({"a network": (both, ball)})
    assert len(drawn.rows[0]) == len(drawn.columns)
    save(drawn.figures[""], tmp_path / "violins.svg")


def test_curves_never_prove_what_is_broken(network, tmp_path):
    model, data = network
    found = curve(model, data, ("BCP", bl.BCP()), ("a network", Threat(0.2, 2.0)), (0.0, 0.05, 8.0))
    assert found.verified[0] == found.attacked[0] == 1 and found.verified[1] > found.verified[-1]
    assert all(proven <= survived for proven, survived in zip(found.verified, found.attacked, strict=True))
    drawn = of_curves([found])
    assert len(drawn.rows) == 3 and json.dumps(drawn.data)
    save(drawn.figures[""], tmp_path / "curves.svg")


@pytest.mark.slow
def test_a_step_has_a_cost_by_every_method():
    row = step_row("crown-ibp-e-cifar", 1, 1, torch.device("cpu"))
    assert list(row.seconds) == list(row.memory) == list(METHODS) and all(value > 0 for value in row.seconds.values())
    assert row.published is None and "(" not in of_steps([row]).rows[0][4]


def test_costs_stand_beside_the_published_ones_of_their_method(tmp_path):
    ours = dict(zip(METHODS, (2.0, 4.0, 6.0, None), strict=True))
    row = StepRow("cnn7-bn-cifar", 4, ours, dict(zip(METHODS, (10, 20, 30, None), strict=True)), LIRPA_3["cnn7-bn-cifar"])
    found = of_steps([row])
    assert found.rows[0][4:7] == ("2.00 (1.87)", "3.00 (2.81)", "OOM (4.71)")
    assert found.rows[0][7:9] == ("2.00 (1.60)", "3.00 (2.34)")
    assert len(found.rows[0]) == len(found.columns)
    save(figure_of(found.panels), tmp_path / "steps.svg")


def test_the_verb_takes_runs_as_they_are(runs, tmp_path):
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["reproduce", "crown-ibp-2", "--runs", str(runs[2]), "--out", str(out)])
    assert done.exit_code == 0 and "Pure-IBP" in done.output and (out / "crown-ibp-2.svg").exists()
    assert json.loads((out / "crown-ibp-2.json").read_text())["rows"][0]["epochs"] == 2
    refused = CliRunner().invoke(app, ["reproduce", "bcp-2", "--runs", str(runs[2]), "--out", str(out)])
    assert refused.exit_code == 2 and "none of the 1 runs" in refused.output


@pytest.mark.parametrize(("given", "said"), [
    (["lirpa-3", "--epochs", "1"], "--epochs would change nothing of lirpa-3"),
    (["frown-3", "--runs", "."], "--runs would change nothing of frown-3"),
    (["bcp-2", "--network", "mlp-b"], "--network would change nothing of bcp-2"),
    (["barrier-2", "--batch", "8", "--spread"], "--spread, --batch would change nothing of barrier-2"),
    (["lirpa-3", "--engine", "pool"], "--engine would change nothing of lirpa-3"),
    (["lirpa-5", "--data", ".", "--recipe", "mnist-a-short"], "trains on mnist, and this table is about replaced words")])
def test_what_a_table_does_not_read_is_refused(tmp_path, given, said):
    refused = CliRunner().invoke(app, ["reproduce", *given, "--out", str(tmp_path / "out")])
    assert refused.exit_code == 2 and said in refused.stderr and refused.stderr.count("\n") == 1


def test_ctrl_c_says_that_the_same_command_goes_on(tmp_path, monkeypatch):
    def interrupted(*given):
        raise KeyboardInterrupt

    (tmp_path / "runs").mkdir()
    monkeypatch.setattr("boundlab.cli.reproduce.trained_lines", interrupted)
    done = CliRunner().invoke(app, ["reproduce", "bcp-2", "--out", str(tmp_path)])
    assert done.exit_code == 130 and "the same command goes on there" in done.stderr


def test_small_initial_weights_keep_intervals_narrow():
    net, x = nn.Sequential(*(nn.Linear(64, 64) for _ in range(4))), torch.zeros(1, 64)
    width = {}
    for name in ("torch", "bert"):
        if name == "bert":
            initialise_as_bert(net)
            assert all(not layer.bias.any() and 0.015 < layer.weight.std() < 0.025 for layer in net)
        bounds = bl.bound(bl.capture(net, x).detached(), bl.LpBall(x, 0.1), method=bl.IBP())
        width[name] = float((bounds.upper - bounds.lower).mean())
    assert 0.5 < width["bert"] / 0.2 < 2 and width["torch"] > 50 * width["bert"]
    with pytest.raises(SpecError, match="has none"):
        initialise_as_bert(nn.ReLU())
