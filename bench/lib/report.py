"""Medians, the table, and JSON."""

import json
import platform
import statistics
import time
from pathlib import Path


class Result:
    """What a benchmark found."""

    def __init__(self, bench, title, columns):
        self.bench = bench
        self.title = title
        self.columns = columns
        self.rows = []
        self.ratios = []
        self.notes = []

    def row(self, name, **values):
        """A row; `values` by the keys of the columns, `None` for what was not measured."""
        self.rows.append({"name": name, **values})

    def ratio(self, name, value, aim=None):
        """A ratio or a figure that was taken once, with the aim that it must stay below."""
        self.ratios.append({"name": name, "value": value, "aim": aim, "rounds": []})

    def paired(self, name, ours, theirs, aim=None):
        """The median of a ratio taken within each round, where both met the same noise."""
        rounds = [own / other for own, other in zip(ours, theirs)]
        self.ratios.append({"name": name, "value": statistics.median(rounds), "aim": aim, "rounds": rounds})


class Column:
    """One column of the table."""

    def __init__(self, key, head, decimals=1):
        self.key = key
        self.head = head
        self.decimals = decimals


def median(samples, key):
    """The median of one figure over the rounds."""
    return statistics.median(sample[key] for sample in samples)


def spread(samples, key):
    """`lowest-highest` of one figure over the rounds."""
    values = [sample[key] for sample in samples]
    return f"{min(values):.1f}-{max(values):.1f}"


def text(result):
    plan = result.bench.plan
    measured = f"medians of {plan.rounds} interleaved rounds of {plan.seconds} s"
    lines = [f"{result.title}; {measured}", machine(), ""]
    lines += table(result)
    lines.append("")
    for ratio in result.ratios:
        line = f"{ratio['name']}: {ratio['value']:.2f}"
        if ratio["rounds"]:
            line += f", by round {min(ratio['rounds']):.2f}-{max(ratio['rounds']):.2f}"
        if ratio["aim"] is not None:
            line += f" (aim: at most {ratio['aim']:g}, {verdict(ratio)})"
        lines.append(line)
    lines += result.notes
    lines += [f"left out, not found: {peer}" for peer in result.bench.missing]
    return "\n".join(lines)


def verdict(ratio):
    """An aim is met or missed only if every round says so."""
    rounds = ratio["rounds"] or [ratio["value"]]
    met = sum(value <= ratio["aim"] for value in rounds)
    if met == len(rounds):
        return "met"
    return "missed" if met == 0 else f"not decided: met in {met} of {len(rounds)} rounds"


def table(result):
    heads = [result.title.split(":")[0]] + [column.head for column in result.columns]
    cells = [heads, ["---"] + ["---:" for _ in result.columns]]
    for row in result.rows:
        cells.append([row["name"]] + [cell(row.get(c.key), c.decimals) for c in result.columns])
    widths = [max(len(line[at]) for line in cells) for at in range(len(heads))]
    lines = []
    for number, line in enumerate(cells):
        padded = [
            value.ljust(width, "-" if number == 1 and at == 0 else " ")
            if at == 0
            else value.rjust(width, "-" if number == 1 else " ")
            for at, (value, width) in enumerate(zip(line, widths))
        ]
        lines.append("| " + " | ".join(padded) + " |")
    return lines


def cell(value, decimals):
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:.{decimals}f}"


def json_text(result):
    plan = result.bench.plan
    document = {
        "benchmark": result.bench.name,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        "seconds": plan.seconds,
        "rounds": plan.rounds,
        "rows": result.rows,
        "ratios": result.ratios,
        "notes": result.notes,
        "missing": result.bench.missing,
    }
    return json.dumps(document, indent=2) + "\n"


def machine():
    info = Path("/proc/cpuinfo").read_text()
    models = [line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")]
    model = models[0] if models else platform.machine()
    load = Path("/proc/loadavg").read_text().split()[0]
    return f"{len(models) or '?'} cores of {model}, Linux {platform.release()}, load average {load}"
