"""The table of all pipeline classes, docs/pipelines-table.md."""

ORDER = ("right", "right on latents alone", "refused", "WRONG", "not built")
HEAD = """# Every pipeline class of diffusers {version}

Made by `make test-pipelines`: each class is built with tiny random weights and guided. *Right* means: `scale=0` draws
the same bits; the gradient of n = 1 is that of the pipeline's own graph; that of n = 3 is that of central differences,
at the estimate that the pipeline itself comes to when it is sent to the look-ahead's times; what objectives see is what
the pipeline decodes; a guided last step arrives in what is drawn; afterwards everything is as before. *Right on latents
alone*: all that with `decode=False`, and `decode=True` is refused. *Refused*: in the first step, with this sentence,
and nothing is changed. A line may be of one setting of a class, named after a colon.

{counts}

"""


def page(rows, reasons, covered, version):
    """The page as text.

    Args:
        rows: results by case.
        reasons: of every class why it is no pipeline to guide, or has no case.
        covered: classes that have cases.
    """
    lines = ["| class | verdict | objectives see | what to know |", "|---|---|---|---|"]
    for name in sorted(rows, key=lambda name: (name.split(":")[0].lower(), name)):
        row = rows[name]
        know = ". ".join(filter(None, [row["sentence"], *row.get("notes", [])]))
        lines.append(f"| {name} | {row['verdict']} | {row.get('sees', '')} | {_cell(know)} |")
    out = [f"| {name} | {why} |" for name, why in sorted(reasons.items()) if why and name not in covered]
    rest = ["", "## Left out", "", "| class | why |", "|---|---|", *out, ""]
    kinds = [{n.split(":")[0] for n, row in rows.items() if row["verdict"] == verdict} for verdict in ORDER]
    counts = ", ".join(f"{len(k)} {v}" for k, v in zip(kinds, ORDER, strict=True) if k)
    intro = f"Of {len(reasons)} classes: {counts}, {len(out)} left out (a class with several settings counts in each)."
    return HEAD.format(version=version, counts=intro) + "\n".join(lines + rest)


def _cell(text):
    return " ".join(text.replace("|", "/").split())
