"""`--mode=validate`: look for what is wrong in a data set, by kind; errors end in exit status 2."""

import time
from pathlib import Path

from amt.data.dexycb import DexYCB, find_root
from amt.data.hand_labels import HandIds, check_hand_labels, describe_masked
from amt.data.validation import ERRORS, WARNINGS, Report, check_sequences, survey
from amt.errors import UserError
from amt.hand import HandModel
from amt.modes.common import Progress, write_json
from amt.modes.hands import load_hand


def run(config, workdir: Path, input: str | None) -> dict:
    """Figures where there are only warnings. Raises `UserError` after writing them where there are errors."""
    root = find_root(config.data.root)
    start = time.monotonic()
    found = survey(root)
    report = found.report
    with Progress(found.num_frames, "frames") as progress:
        for part in check_sequences(found, config.validate.num_workers):
            report.merge(part)
            progress.update(part.frames, note=f"{report.count(ERRORS)} errors, {report.count(WARNINGS)} warnings")
    if not report.count(ERRORS):
        check_hand(report, root, load_hand(config.hand))
    print_report(report)
    figures = {
        "root": str(root),
        "sequences": len(found.sequences),
        "frames": report.frames,
        "errors": report.count(ERRORS),
        "warnings": report.count(WARNINGS),
        "kinds": dict(report.counts),
        "first": {kind: paths for kind, paths in report.first.items()},
        "validation_s": time.monotonic() - start,
    }
    if figures["errors"]:
        path = write_json(workdir / "validate.json", {**figures, "config": config.to_dict()})
        kinds = ", ".join(f"{report.counts[kind]} {kind}" for kind in ERRORS if kind in report.counts)
        raise UserError(f"{root}: {figures['errors']} errors ({kinds}); repair or remove what {path} lists")
    return figures


def check_hand(report: Report, root: Path, hand: HandModel) -> None:
    """Adds whether the set's hand labels belong to the hand in use, and whether their joints are its."""
    source = DexYCB(root, part="all", hands=HandIds.of(hand))
    count, line = describe_masked(source.hand_owners(), HandIds.of(hand))
    if count:
        report.add("labels of another hand", root, line)
    try:
        check_hand_labels(source, hand)
    except UserError as error:
        report.add("wrong hand model", root, str(error))


def print_report(report: Report) -> None:
    """Each kind with its count and first paths, errors first."""
    for severity, kinds in (("error", ERRORS), ("warning", WARNINGS)):
        for kind in kinds:
            if kind not in report.counts:
                continue
            print(f"{severity:<8} {kind}: {report.counts[kind]}")
            for line in report.first[kind]:
                print(f"           {line}")
            if (more := report.counts[kind] - len(report.first[kind])) > 0:
                print(f"           and {more} more")
