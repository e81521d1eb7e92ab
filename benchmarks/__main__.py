"""python -m benchmarks: measure, show tables, measure scaling laws, say what bounds the time."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
import typer

from benchmarks import machine, ours, peer
from benchmarks.barrier import comparison, cost_table, experiments_of, plan_table
from benchmarks.cases import OURS, PEER, STEP_BATCH, STEP_NETWORK, Limits, Line
from benchmarks.figure import save_figure
from benchmarks.laws import laws_table
from benchmarks.limits import limits_table, measure_limits
from benchmarks.networks import Network, networks_of
from benchmarks.programs import Setting, lines_of, measure, programs_table, settings_of
from benchmarks.scaling import AXES, LADDERS, QUICK, measure_all
from benchmarks.scatter import save_scatter
from benchmarks.suite import Effort, Plan, measure_bounds, measure_steps
from benchmarks.tables import markdown, merged, page, provenance, sentences, tables_of
from benchmarks.targets import target_lines
from benchmarks.tightness import SETTINGS, Extent, measure_networks, tightness_table
from benchmarks.workers import turns, turns_table
from boundlab.cli.answer import Answer, jsonable, show
from boundlab.engines.cluster import Ray
from boundlab.engines.pool import Pool

Value = TypeVar("Value")
app = typer.Typer(no_args_is_help=False, add_completion=False, pretty_exceptions_enable=False,
                  help="What boundlab's bounds cost, beside auto_LiRPA where that is importable.")
ALL, NONE = "all", "none"


def check_device(device: str) -> str:
    """The device, if it can be measured on here."""
    if device != "cpu" and not device.startswith("cuda"):
        raise typer.BadParameter(f"--device is cpu or cuda, got '{device}'.")
    if device != "cpu" and not torch.cuda.is_available():
        raise typer.BadParameter(f"torch sees no CUDA device here, so nothing can be measured on '{device}'.")
    return device


Data = Annotated[Path | None, typer.Option(envvar="BOUNDLAB_DATA",
                                           help="Folder with bench/networks.py; without one, small networks of our own.")]
Networks = Annotated[str, typer.Option(help="Names with commas between, 'all' or 'none'.")]
Methods = Annotated[str, typer.Option(help="As --networks: " + ", ".join(ours.METHODS) + ".")]
Steps = Annotated[str, typer.Option(help="Training steps with semicolons between, 'all' or 'none': " + "; ".join(ours.STEPS))]
Batches = Annotated[str | None, typer.Option(help="Numbers of inputs at once; default: 1,8,64.")]
Targets = Annotated[bool, typer.Option("--targets", help="Only the cases that have a target, and all training steps.")]
WithPeer = Annotated[bool, typer.Option("--peer/--no-peer", help="Measure auto_LiRPA too, if it is importable.")]
Cap = Annotated[float, typer.Option(help="Seconds that one call may take.")]
Patience = Annotated[float, typer.Option(help="Seconds that the repetitions of one call should take.")]
Gigabytes = Annotated[float, typer.Option(help="Memory that one process may ask for (CPU).")]
Device = Annotated[str, typer.Option(help="cpu or cuda.", callback=check_device)]
Smoke = Annotated[bool, typer.Option("--smoke", help="Small networks and batches of our own: no figures worth quoting.")]
Out = Annotated[Path | None, typer.Option(help="The JSON file to write, anew after each case.")]
Figure = Annotated[Path | None, typer.Option(help="The picture to draw, .svg or .png (needs matplotlib).")]
Axes = Annotated[str, typer.Option(help=f"Along what: {', '.join(AXES)}, or 'all'.")]
Papers = Annotated[Path, typer.Option(envvar="BOUNDLAB_DATA", help="Folder with paper_models and datasets/mnist.")]
Errors = Annotated[int, typer.Option(min=0, help="Test images of the networks of the barrier paper's Table 1.")]
Radii = Annotated[int, typer.Option(min=0, max=10, help="Of the ten images of Table 2.")]
Rounds = Annotated[int, typer.Option(min=1, help="Radii that a search of Table 2 tries.")]
Overhead = Annotated[float, typer.Option(min=0, help="Seconds that a task costs beside its work, in the simulated schedule.")]
Quick = Annotated[bool, typer.Option("--quick", help="Tiny networks, to see that it runs.")]
Files = Annotated[list[Path], typer.Argument(help="Results that --out wrote; later files replace equal cases.")]


def chosen(text: str, known: Mapping[str, Value], kind: str, mark: str = ",") -> dict[str, Value]:
    """The entries that an option names, in the option's order; case does not matter."""
    if text in (ALL, NONE):
        return dict(known) if text == ALL else {}
    spelt = {name.lower(): name for name in known}
    asked = [name.strip().lower() for name in text.split(mark)]
    strange = [name for name in asked if name not in spelt]
    if strange:
        raise typer.BadParameter(f"there is no {kind} '{strange[0]}'; there are {f'{mark} '.join(known)}.")
    return {spelt[name]: known[spelt[name]] for name in asked}


def peer_here(wanted: bool) -> dict[str, Any]:
    """Whether the peer takes part, and what was done for it."""
    if not wanted:
        return {"used": False, "note": "not asked for"}
    if not peer.installed():
        return {"used": False, "note": "auto_LiRPA is not importable"}
    try:
        version, note = peer.describe()
    except Exception as problem:  # a peer that does not load takes no part, and the run says so
        return {"used": False, "note": f"auto_LiRPA cannot be imported: {problem}"}
    return {"used": True, "version": version, "note": f"auto_LiRPA {version}" + (f"; {note}" if note else "")}


def told(entries: Iterable[dict[str, Any]], total: int) -> Iterator[dict[str, Any]]:
    """The entries, each with a line on standard error when it is done."""
    for place, entry in enumerate(entries, 1):
        sides = [(library, entry[library]) for library in (OURS, PEER) if library in entry]
        said = [f"{library} {side['note'] or format(side['seconds'], '.3g') + ' s'}" for library, side in sides]
        print(f"{place}/{total}  {entry['network']} {entry['method']} {entry['batch']}: {', '.join(said)}", file=sys.stderr,
              flush=True)
        yield entry


def save(results: Mapping[str, Any], out: Path | None) -> None:
    """Write what there is so far."""
    if out is not None:
        out.write_text(json.dumps(jsonable(results), indent=1) + "\n", encoding="utf-8")


@app.callback(invoke_without_command=True)
def run(context: typer.Context, data: Data = None, networks: Networks = ALL, methods: Methods = ALL, steps: Steps = ALL,
        batches: Batches = None, targets: Targets = False, with_peer: WithPeer = True, cap: Cap = 60.0,
        patience: Patience = 10.0, gigabytes: Gigabytes = 14.0, device: Device = "cpu", smoke: Smoke = False,
        out: Out = None) -> None:
    """Measure bounds and training steps: time, extra peak memory, mean lower bound; ratios to auto_LiRPA if it is here."""
    if context.invoked_subcommand is not None:
        return
    known, present = networks_of(None if smoke else data), peer_here(with_peer)
    numbers = tuple(int(batch) for batch in (batches or ("1,2" if smoke else "1,8,64")).split(","))
    asked, by = chosen(networks, known, "network"), chosen(methods, ours.METHODS, "method")
    lines = [Line(network, method, numbers) for network in asked for method in by]
    if targets:
        lines = [line for line in target_lines() if line.network in asked and line.method in by]
    wanted = tuple(chosen(steps, dict.fromkeys((*ours.STEPS, *peer.STEPS)), "training step", ";"))
    libraries = (OURS, PEER) if present["used"] else (OURS,)
    plan = Plan(libraries, Effort(Limits(cap, gigabytes), 0.1 if smoke else patience), device)
    results: dict[str, Any] = {"machine": machine.describe(device), "peer": present, "effort": asdict(plan.effort)}
    results |= {"bounds": [], "training": []}
    for entry in told(measure_bounds(lines, known, plan), sum(len(line.batches) for line in lines)):
        results["bounds"].append(entry)
        save(results, out)
    trained = step_network(known)
    if trained is not None and wanted:
        results["training"] = measure_steps(trained, wanted, 4 if smoke else STEP_BATCH, plan)
    save(results, out)
    show(Answer(results, tuple(tables_of(jsonable(results))), tuple(sentences(results))), as_json=False)


def step_network(known: Mapping[str, Network]) -> Network | None:
    """The network that is trained: cnn7, or the small convolutional one."""
    return next((known[name] for name in (STEP_NETWORK, "small_cnn") if name in known), None)


@app.command()
def table(files: Files) -> None:
    """Print results as Markdown, for a page: what a run or `scaling` wrote."""
    parts = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    runs, laws = [part for part in parts if "bounds" in part], [part for part in parts if "points" in part]
    print("\n\n".join([*([page(merged(runs))] if runs else []), *(laws_page(part) for part in laws)]))


def laws_page(results: Mapping[str, Any]) -> str:
    """Scaling laws as Markdown."""
    return "\n\n".join([provenance(results["machine"]), markdown(laws_table(results["points"]))])


@app.command()
def scaling(out: Out = None, figure: Figure = None, axes: Axes = ALL, cap: Cap = 60.0, patience: Patience = 3.0,
            gigabytes: Gigabytes = 14.0, device: Device = "cpu", quick: Quick = False) -> None:
    """Measure how CROWN's time and memory grow with depth, width, batch and rows, on generated networks."""
    along = tuple(chosen(axes, dict.fromkeys(AXES), "axis"))
    plan = Plan((OURS,), Effort(Limits(cap, gigabytes), 0.0 if quick else patience), device)
    results: dict[str, Any] = {"machine": machine.describe(device), "effort": asdict(plan.effort), "points": []}
    for point in measure_all(QUICK if quick else LADDERS, along, plan):
        results["points"].append(point)
        said = point["note"] or f"{point['seconds']:.3g} s"
        print(f"{point['family']} eps {point['eps']} {point['axis']} {point['size']}: {said}", file=sys.stderr, flush=True)
        save(results, out)
    if figure is not None:
        save_figure(results["points"], figure)
    show(Answer(results, (laws_table(results["points"]),), (provenance(results["machine"]),)), as_json=False)


@app.command()
def limits(data: Data = None, networks: Networks = ALL, methods: Methods = "CROWN", batches: Batches = "1,8",
           device: Device = "cpu") -> None:
    """Say what bounds the time: arithmetic, memory traffic or the calls themselves, at this machine's measured speeds."""
    asked, by = chosen(networks, networks_of(data), "network"), chosen(methods, ours.METHODS, "method")
    numbers = [int(batch) for batch in (batches or "1").split(",")]
    cases = [(network, method, batch) for network in asked.values() for method in by for batch in numbers]
    found = measure_limits(cases, device)
    show(Answer({"limits": found}, (limits_table(found),), (provenance(machine.describe(device)),)), as_json=False)


@app.command()
def programs(data: Papers, errors: Errors = 20, radii: Radii = 5, rounds: Rounds = 10, overhead: Overhead = 0.01) -> None:
    """Measure linear programs on published networks, and say what the barrier paper's experiments would cost with them."""
    cases = []
    for setting in settings_of(errors, radii):
        cases.append(measure(setting, data))
        print(f"{setting.network} {setting.eps}: {cases[-1].an_image():.3g} s an image", file=sys.stderr, flush=True)
    lines, experiments = [line for case in cases for line in lines_of(case)], experiments_of(cases, rounds)
    tables = programs_table(lines), cost_table(experiments), plan_table(experiments, overhead)
    said = comparison(experiments), provenance(machine.describe("cpu"))
    print("\n\n".join([*(f"{table.title}\n\n{markdown(table)}" for table in tables), *said]))


@app.command()
def workers(data: Papers, ray: Annotated[bool, typer.Option("--ray", help="Ray's workers, not a pool's.")] = False,
            images: Annotated[int, typer.Option(min=1, help="Test images.")] = 10,
            repeat: Annotated[int, typer.Option(min=1, help="How often one and two workers take turns.")] = 3) -> None:
    """Measure two workers against one: linear programs for NOR_MLP_B at radius 0.03."""
    torch.set_num_threads(1)
    setting = Setting("NOR_MLP_B", 0.03, tuple(range(images)), 0.0)
    if ray:
        with Ray(workers=2).open():
            found = turns(setting, data, (Ray(workers=1), Ray(workers=2)), repeat)
    else:
        with Pool(1).open() as one, Pool(2).open() as two:
            found = turns(setting, data, (one, two), repeat)
    print("\n\n".join([markdown(turns_table(found)), provenance(machine.describe("cpu"))]))


@app.command()
def tightness(out: Out = None, figure: Figure = None, quick: Quick = False) -> None:
    """Measure margins and CPU seconds of every method on three small networks for digits, which are trained first."""
    torch.set_num_threads(1)
    extent = Extent(epochs=1, images=1, turns=1, patience=0.0) if quick else Extent()
    results: dict[str, Any] = {"machine": machine.describe("cpu"), "extent": asdict(extent), "networks": []}
    for entry in measure_networks(SETTINGS[:1] if quick else SETTINGS, extent):
        results["networks"].append(entry)
        print(f"{entry['network']}: done", file=sys.stderr, flush=True)
        save(results, out)
    if figure is not None:
        where = results["machine"]
        save_scatter(results["networks"], f"{where['date']}, {where['processor']}, {where['cores']} shared cores, 1 thread, "
                     f"torch {where['torch']}; {extent.images} images, median of {extent.turns} turns", figure)
    show(Answer(results, (tightness_table(results["networks"]),), (provenance(results["machine"]),)), as_json=False)


if __name__ == "__main__":
    app()
