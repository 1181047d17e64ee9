"""Guide every pipeline class of the installed diffusers, keep what came out, and write the table.

    python tests/pipelines/every/run.py                     # all that is not kept for these sources
    python tests/pipelines/every/run.py --only FluxPipeline --again
    python tests/pipelines/every/run.py --table             # the table alone, of what is kept

Each case runs in a process of its own with a time limit, so that a crash or a hang costs that case alone. Results are
lines of JSON, kept by case, diffusers version and a digest of the sources: what is kept is not made again.
"""

import argparse
import hashlib
import json
import os
import select
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(HERE), str(HERE / "families"), str(HERE.parent)]

import cases as known  # noqa: E402
import tables  # noqa: E402
import tqdm  # noqa: E402

KEPT = ROOT / "out" / "pipelines" / "every.jsonl"
PAGE = ROOT / "docs" / "pipelines-table.md"


def digest():
    """Of what decides a result: symguide's sources and the judge's. A case's own builder is not in it: use --again."""
    import symguide

    sources = Path(symguide.__file__).parent
    inside = ("pipelines", "loss_guidance")
    files = sorted([*sources.glob("*.py"), *(f for d in inside for f in (sources / d).glob("*.py"))])
    files += [HERE / "judge.py", HERE / "oracle.py"]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def kept(path):
    """The last result of every case, by (case, diffusers version, digest), and by case alone."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {(row["case"], row["diffusers"], row["sources"]): row for row in rows}, {row["case"]: row for row in rows}


def judged(case):
    """The verdict on a case, here."""
    from judge import Judge

    with tempfile.TemporaryDirectory() as folder:
        return Judge(case, Path(folder)).verdict()


class Child:
    """A process that judges one case, and what it says."""

    def __init__(self, case, limit, aloud):
        self.case, self.began, self.limit, self.said = case, time.monotonic(), case.notes.get("seconds", limit), b""
        self.pipe, write = os.pipe()
        self.process = os.fork()
        if self.process == 0:
            os.close(self.pipe)
            try:
                if not aloud:
                    null = os.open(os.devnull, os.O_WRONLY)
                    os.dup2(null, 1), os.dup2(null, 2)
                row = judged(case)
            except BaseException:
                trace = traceback.format_exc()
                row = {"verdict": "WRONG", "sentence": f"the judge itself failed: {trace.splitlines()[-1]}"}
                if aloud:
                    print(trace)
            os.write(write, json.dumps(row).encode())
            os._exit(0)
        os.close(write)

    def done(self):
        """The row, once it is there; the process is ended where it takes too long."""
        over = time.monotonic() - self.began > self.limit
        if over:
            os.kill(self.process, signal.SIGKILL)
        elif not select.select([self.pipe], [], [], 0)[0]:
            return None
        while not over and (chunk := os.read(self.pipe, 1 << 16)):
            self.said += chunk
        os.close(self.pipe)
        _, _, used = os.wait4(self.process, 0)
        if self.said:
            row = json.loads(self.said)
        else:
            row = {"verdict": "WRONG", "sentence": f"no answer in {self.limit:.0f} s" if over else "the process died"}
        return row | {"seconds": round(used.ru_utime + used.ru_stime, 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", metavar="NAME", help="classes or cases; part of a name will do")
    parser.add_argument("--again", action="store_true", help="also what is kept already")
    parser.add_argument("--table", action="store_true", help="write the table of what is kept, and run nothing")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--limit", type=float, default=900.0, help="seconds for a case")
    parser.add_argument("--aloud", action="store_true", help="show what the cases print, and full errors")
    parser.add_argument("--kept", type=Path, default=KEPT)
    parser.add_argument("--page", type=Path, default=PAGE)
    given = parser.parse_args()
    import diffusers
    import torch

    torch.set_num_threads(1)
    every, sources = known.cases(), digest()
    have, latest = kept(given.kept)

    def wanted(name):
        whole = [word for word in given.only or () if any(word in (n, n.split(":")[0]) for n in every)]
        fits = not given.only or any(word in (name, name.split(":")[0]) for word in whole)
        fits = fits or any(word in name for word in given.only or () if word not in whole)
        return fits and (given.again or (name, diffusers.__version__, sources) not in have)

    todo = [] if given.table else [case for name, case in every.items() if wanted(name)]
    given.kept.parent.mkdir(parents=True, exist_ok=True)
    warmed(todo)
    running, failed = [], []
    with tqdm.tqdm(total=len(todo), disable=not todo, desc="pipelines") as bar, given.kept.open("a") as file:
        while todo or running:
            while todo and len(running) < given.jobs:
                running.append(Child(todo.pop(0), given.limit, given.aloud))
            time.sleep(0.05)
            for child in list(running):
                if (row := child.done()) is None:
                    continue
                running.remove(child)
                row = {"case": child.case.name, "diffusers": diffusers.__version__, "sources": sources} | row
                latest[child.case.name] = row
                file.write(json.dumps(row) + "\n")
                file.flush()
                bar.update()
                said = f": {row['sentence']}" if row["sentence"] else ""
                bar.write(f"{child.case.name}: {row['verdict']}{said} ({row['seconds']} s)" + gaps(row, given.aloud))
    failed = [name for name, row in latest.items() if name in every and row["verdict"] == "WRONG"]
    reasons = {name: why or known.left_out().get(name, "") for name, why in known.classes().items()}
    covered = {case.kind for case in every.values()}
    missing = [name for name, why in reasons.items() if not why and name not in covered]
    if not given.only:
        page = tables.page({n: r for n, r in latest.items() if n in every}, reasons, covered, diffusers.__version__)
        given.page.write_text(page)
        print(f"{given.page.name} is written")
    print(f"{len(failed)} wrong" + ("" if given.only else f", no case and no reason: {len(missing)} {missing}"))
    for name in failed:
        print(f"WRONG {name}: {latest[name]['sentence']}")
    unbuilt = [name for name, row in latest.items() if name in every and row["verdict"] == "not built"]
    for name in unbuilt:
        print(f"not built {name}: {latest[name]['sentence']}")
    return bool(failed or unbuilt or (missing and not given.only))


def gaps(row, aloud):
    return f"\n    {row.get('gaps')} {row.get('notes')} {row.get('sees')}" if aloud else ""


def warmed(todo):
    """Everything imported, so that the processes need not. (No gradient is taken: autograd does not outlive a fork.)"""
    if not todo:
        return
    import diffusers
    import judge  # noqa: F401

    for case in todo:
        getattr(diffusers, case.kind)


if __name__ == "__main__":
    sys.exit(main())
