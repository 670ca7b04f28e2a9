"""Parts of an evaluation's report beside the hand's: objects, contacts, official scores, all figures."""

from collections.abc import Iterator, Mapping

from amt.evaluation.samples import Samples
from amt.viz.measures import CONTACTS, OBJECTS, Figures, contact_points_table, measures_table
from amt.viz.sections import Section, Table, number, percent


def objects_section(samples: Samples, figures: Figures) -> Section:
    """The grasped object and the contacts with it, where the data set labels them."""
    tables = (
        *measures_table("The grasped object", OBJECTS, figures, "mean offset from the wrist, not turned"),
        *contact_points_table(figures),
        *measures_table("What contacts are like", CONTACTS, figures, "the most frequent kind, no force"),
    )
    words = (
        "The object is named, as in the BOP protocol: of the queries of its class the most confident counts.",
        f"Contacts are known in {percent(float((samples.touches >= 0).mean()), 0)} of the frames.",
    )
    if not tables:
        words = ("No object is grasped in these frames, and no contact is labelled.",)
    return Section("objects", "Objects and contacts", words, tables)


def official_section(figures: Figures) -> tuple[Section, ...]:
    """Scores of the result files, where they were written."""
    hpe, bop, coco = (figures.get(f"official_{name}") for name in ("hpe", "bop", "coco"))
    tables = []
    if hpe:
        rows = [
            (words, number(hpe[f"{kind}_mpjpe_mm"], 2), number(hpe[f"{kind}_auc"], 4))
            for kind, words in (("absolute", "absolute"), ("root_relative", "root-relative"), ("procrustes", "aligned"))
        ]
        tables.append(Table(f"HPE, {hpe['samples']} samples", ("joints", "MPJPE, mm", "AUC, 0 to 50 mm"), rows))
    if bop:
        kinds = list(bop["all"])
        lines = {"all targets": bop["all"], "grasped objects": bop["grasp_only"], **bop["by_object"]}
        rows = [(words, *(number(line[kind], 1) for kind in kinds)) for words, line in lines.items()]
        caption = f"BOP, {bop['targets']} targets, {bop['targets_missing']} of them without an estimate"
        tables.append(Table(caption, ("average recall, %", *kinds), rows))
    if coco:
        names = list(dict.fromkeys(name for scores in coco.values() for name in scores))
        rows = [(task, *(number(scores.get(name), 1) for name in names)) for task, scores in coco.items()]
        tables.append(Table("COCO", ("average precision, %", *names), rows))
    words = ("As the DexYCB toolkit scores the result files beside this page.",)
    return (Section("official", "Official scores", words, tuple(tables)),) if tables else ()


def every_figure(figures: Figures) -> Section:
    """All numbers, folded; names inside names are joined by dots."""
    rows = [(name, number(value, 4)) for name, value in _flat(figures)]
    table = Table("By the names in evaluate.json", ("name", "value"), rows)
    return Section("figures", "Every figure", tables=(table,), folded=f"{len(rows)} figures")


def _flat(figures: Figures, prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield prefix + name, value
