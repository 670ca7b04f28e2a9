"""Two evaluations of the same data set, frame by frame."""

from pathlib import Path
from typing import Any

import numpy as np

from amt.errors import UserError
from amt.evaluation.bootstrap import Bootstrap
from amt.evaluation.samples import FILE, Samples
from amt.evaluation.summary import figures_of, summed

HEADLINES = ("mpjpe_mm", "absolute_mpjpe_mm", "pa_mpjpe_mm", "given_side_mpjpe_mm", "pck_auc_50mm", "error_2d_px")
HEADLINES += ("side_right_share", "object_position_mm", "add_s_mm", "add_s_recall", "contact_f1_5mm", "contact_f1_20mm")
SORTED_BY = "mpjpe_mm"  # frames, by its change
NAMED = 10  # frames that became better, and as many that became worse
SAME = 1e-5  # metres that labels may differ by


def load_other(folder: str, here: dict[str, Any]) -> Samples:
    """The table of an earlier evaluation, of the data set that `here` (`Samples.about`) tells of.

    Raises: UserError for a folder without one, and for one of another part or of another number of samples.
    """
    path = Path(folder).expanduser() / FILE
    if not path.parent.is_dir():
        raise UserError(f"config.eval.against={folder}: no such folder; expected the --workdir of an evaluation")
    other = Samples.load(path)
    for name in ("split", "part", "source_samples"):
        if other.about.get(name) != here[name]:
            raise UserError(
                f"{path}: another data set: {name} is {other.about.get(name)} there ({other.about.get('root')}) and "
                f"{here[name]} here ({here['root']}); compare evaluations of the same frames"
            )
    return other


def compare(ours: Samples, theirs: Samples, seed: int = 0) -> dict[str, Any]:
    """Of the frames that both have: every headline figure `here` and `there`, and their `difference` with the interval
    of drawing recordings again, the same for both; the shares of frames that are better and worse; and the frames that
    changed most.

    Raises: UserError where no frame is in both, or where the labels differ.
    """
    common, a, b = np.intersect1d(ours.index, theirs.index, return_indices=True)
    if not len(common):
        raise UserError(
            f"config.eval.against: none of the {len(theirs)} frames there is among the {len(ours)} here; use the same "
            "config.eval.max_samples"
        )
    here, there = ours.take(a), theirs.take(b)
    _check_labels(here, there)
    bootstrap = Bootstrap.of(here, seed)
    (total, drawn), (total_there, drawn_there) = (bootstrap.totals(summed(samples)) for samples in (here, there))
    sides = [figures_of(x) for x in (total, total_there, drawn, drawn_there)]
    names = [name for name in HEADLINES if all(name in side for side in sides)]
    return {
        "weights": there.about.get("weights"),
        "samples": len(common),
        "samples_only_here": len(ours) - len(common),
        "samples_only_there": len(theirs) - len(common),
        "figures": [_row(name, here, there, sides, bootstrap) for name in names],
        "frames": _frames(here, there),
    }


def flat(comparison: dict[str, Any]) -> dict[str, Any]:
    """The comparison as figures of evaluate.json, `against_...`."""
    figures = {name: comparison[name] for name in ("weights", "samples", "samples_only_here", "samples_only_there")}
    for row in comparison["figures"]:
        figures |= {f"{row['name']}_{key}": value for key, value in row.items() if key != "name"}
    return {f"against_{name}": value for name, value in figures.items()} | {"against_frames": comparison["frames"]}


def table(comparison: dict[str, Any]) -> str:
    """Lines for the screen."""
    rows = [f"{'against ' + str(comparison['weights']):<28}{'there':>10}{'here':>10}{'change':>10}   95%{'better':>16}"]
    for row in comparison["figures"]:
        low, high = row["interval"]
        better = "" if row["better_share"] is None else f"{row['better_share']:9.0%}"
        values = "".join(f"{row[key]:10.4g}" for key in ("there", "here", "difference"))
        rows.append(f"{row['name']:<28}{values}  {low:9.3g} to {high:<9.3g}{better}")
    counts = [f"{comparison['samples']} frames in both"]
    counts += [f"{comparison[f'samples_only_{side}']} only {side}" for side in ("here", "there")]
    return "\n".join([*rows, ", ".join(counts)])


def _check_labels(here: Samples, there: Samples) -> None:
    same = np.abs(here.true_joints_m - there.true_joints_m).max((1, 2)) <= SAME
    for name in ("subject", "sequence", "camera", "frame"):
        same &= getattr(here, name) == getattr(there, name)
    if not same.all():
        i = int(np.flatnonzero(~same)[0])
        raise UserError(
            f"config.eval.against: other labels: {(~same).sum()} of {len(here)} frames differ, the first is sample "
            f"{here.index[i]}: {_place(here, i)} here, {_place(there, i)} there; compare evaluations of one data set"
        )


def _place(samples: Samples, i: int) -> str:
    return f"{samples.subject[i]}/{samples.sequence[i]}/{samples.camera[i]} frame {samples.frame[i]}"


def _row(name: str, here: Samples, there: Samples, sides, bootstrap: Bootstrap) -> dict[str, Any]:
    total, total_there, drawn, drawn_there = (side[name] for side in sides)
    row = {"name": name, "there": float(total_there), "here": float(total), "difference": float(total - total_there)}
    row["interval"] = bootstrap.interval(drawn - drawn_there)
    row |= {"better_share": None, "worse_share": None}
    if name in here.figures and not name.endswith(("share", "recall")):  # of single frames
        change = here.figures[name] - there.figures[name]
        change = change[np.isfinite(change)] * (-1 if "auc" in name else 1)
        if len(change):
            row |= {"better_share": float((change < 0).mean()), "worse_share": float((change > 0).mean())}
    return row


def _frames(here: Samples, there: Samples) -> list[dict[str, Any]]:
    """Those that became worse first, the most changed in front; then those that became better."""
    change = here.figures[SORTED_BY] - there.figures[SORTED_BY]
    order = np.argsort(-change, kind="stable")
    worse, better = order[change[order] > 0][:NAMED], order[change[order] < 0][::-1][:NAMED]
    return [
        {
            "index": int(here.index[i]),
            "subject": str(here.subject[i]),
            "sequence": str(here.sequence[i]),
            "camera": str(here.camera[i]),
            "frame": int(here.frame[i]),
            f"{SORTED_BY}_there": float(there.figures[SORTED_BY][i]),
            f"{SORTED_BY}_here": float(here.figures[SORTED_BY][i]),
        }
        for i in (*worse, *better)
    ]
