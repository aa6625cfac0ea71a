#!/usr/bin/env python3
"""A whole game under load, watched as in production: Prometheus, Alertmanager and the exporters.

    observe.py TBG                        keep all of it running; Ctrl-C stops it
    observe.py panels TBG                 every query of every panel and alert must work and give data
    observe.py alerts TBG                 freeze Redis, then the database: the right alert fires and resolves
    observe.py preview TBG [--out FILE]   draw all panels into one picture

TBG is the program, a release build. Everything runs on free ports and in temporary folders.
"""

import argparse
import json
import math
import signal
import sys
import time
from pathlib import Path

from observe_lib import MONITORING, REPOSITORY, Load, Stack

# Panels that can have no data here, and why. Nothing else may be empty.
EXCEPTIONS = {}
# The audit log's first seal covers the first whole minute that has been over for a minute.
PATIENCE_SECONDS = 240
# What is frozen → the alert that must fire.
FAILURES = {"redis": "RedisDown", "database": "DatabaseDown"}


def panels():
    """Every panel as it is committed: dashboard, panel."""
    for name in ("api-overview", "mining", "gamification", "infrastructure"):
        dashboard = json.loads((MONITORING / f"grafana/dashboards/{name}.json").read_text())
        for panel in dashboard["panels"]:
            yield dashboard["title"], panel


def finite(points):
    return [(at, value) for at, value in points if math.isfinite(value)]


def measure(stack):
    """Rows of the table (panel, legend, series, points, last value), and panels without data."""
    rows, empty = [], []
    for dashboard, panel in panels():
        name, filled = f"{dashboard}: {panel['title']}", True
        for target in panel["targets"]:
            try:
                series = stack.ask(target, 60, 5)
            except ValueError as error:
                sys.exit(f"observe: {name}: {error}")
            points = [finite(points) for _, points in series]
            last = max((each[-1][1] for each in points if each), default=math.nan)
            rows.append((name, target["legendFormat"], len(series), sum(map(len, points)), last))
            filled = filled and any(points)
        if not filled:
            empty.append(name)
    return rows, empty


def warm_up(stack, seconds):
    """Makes load until each panel has data, at least so long; not much longer than the slowest job needs."""
    print(f"load for {seconds} s or more", flush=True)
    started = time.monotonic()
    time.sleep(seconds)
    while (found := measure(stack))[1] and time.monotonic() - started < max(seconds, PATIENCE_SECONDS):
        time.sleep(10)
    print(f"load for {time.monotonic() - started:.0f} s", flush=True)
    return found


def check_panels(stack, options):
    rows, empty = warm_up(stack, options.seconds)
    print(f"{'panel':<42} {'query':<14} {'series':>6} {'points':>6}  last")
    for name, legend, series, points, last in rows:
        print(f"{name:<42} {legend:<14} {series:>6} {points:>6}  {last:.4g}")
    rules, sick = alert_rules(stack)
    total = len({name for name, *_ in rows})
    print(f"\npanels with data: {total - len(empty)} of {total}")
    print(f"alert expressions that work: {rules - len(sick)} of {rules}")
    for name in empty:
        print(f"no data  {name}", EXCEPTIONS.get(name, ""))
    for name in sick:
        print(f"FAILED   {name}")
    return not set(empty) - EXCEPTIONS.keys() and not sick and rules > 0


def alert_rules(stack):
    rules = [rule for group in stack.prometheus("rules")["groups"] for rule in group["rules"]]
    sick = [f"{rule['name']}: {rule.get('lastError') or rule['health']}" for rule in rules if rule["health"] != "ok"]
    return len(rules), sick


def check_alerts(stack, options):
    def targets():
        return stack.prometheus("targets")["activeTargets"]

    stack.wait("all targets", lambda: {each["health"] for each in targets()} == {"up"}, 60)
    print("\n".join(f"target {each['labels']['job']:<12} {each['health']}" for each in targets()))
    print(f"alert expressions: {alert_rules(stack)[0]}")
    stack.wait("the alert that always fires", lambda: "Watchdog" in stack.alerts(), 60)
    return all([freeze(stack, server, FAILURES[server]) for server in options.stop or FAILURES])


def freeze(stack, server, alert):
    """Whether the alert of a frozen server fires, as critical, without the other server's, and resolves."""
    before = stack.alerts()
    if alert in before:
        sys.exit(f"observe: {alert} fires before anything is broken")
    print(f"\n{server} is frozen", flush=True)
    with stack.frozen(server):
        _, fired = stack.wait(f"{alert} to fire", lambda: alert in stack.alerts(), 180)
        new = {name: severity for name, severity in stack.alerts().items() if name not in before}
    print(f"  {alert} ({new[alert]}) fires after {fired:.1f} s")
    print(f"  also new: {', '.join(sorted(new.keys() - {alert})) or 'no alert'}")
    _, resolved = stack.wait(f"{alert} to resolve", lambda: alert not in stack.alerts(), 180)
    print(f"  {server} goes on: {alert} is resolved after {resolved:.1f} s", flush=True)
    right = new[alert] == "critical" and not new.keys() & set(FAILURES.values()) - {alert}
    print("" if right else "  FAILED: the severity is not critical, or the other server's alert fires too")
    return right


def keep_running(stack, options):
    for name in ("tbg", "prometheus", "alertmanager"):
        print(f"{name:<14} {stack.url(name)}")
    print("Ctrl-C stops all of it.", flush=True)
    stack.wait("Ctrl-C", lambda: False, math.inf)


def preview(stack, options):
    try:
        import matplotlib
    except ImportError:
        sys.exit("observe: needs matplotlib: pip install -r backend/monitoring/requirements.txt")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    warm_up(stack, options.seconds)
    groups = {}
    for dashboard, panel in panels():
        groups.setdefault(dashboard, []).append(panel)
    columns = 5
    rows = [math.ceil(len(group) / columns) for group in groups.values()]
    pyplot.rcParams.update({"font.size": 8, "axes.titlesize": 9, "axes.grid": True, "grid.alpha": 0.3})
    figure = pyplot.figure(figsize=(4.4 * columns, 3.1 * sum(rows)), layout="constrained")
    parts = figure.subfigures(len(groups), 1, height_ratios=rows)
    for part, height, (dashboard, group) in zip(parts, rows, groups.items(), strict=True):
        part.suptitle(dashboard, fontsize=14, fontweight="bold", x=0.01, ha="left")
        axes = part.subplots(height, columns, squeeze=False).flatten()
        for ax, panel in zip(axes, group, strict=False):
            draw(stack, ax, panel, options.seconds)
        for ax in axes[len(group):]:
            ax.axis("off")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=90)
    print(f"{sum(map(len, groups.values()))} panels in {options.out}")
    return True


def series_of(stack, panel, seconds):
    """What a panel shows: legend, points."""
    for target in panel["targets"]:
        for labels, points in stack.ask(target, seconds, 2):
            legend = target["legendFormat"]
            for name, value in labels.items():
                legend = legend.replace("{{%s}}" % name, value)
            if points := finite(points):
                yield legend, points


def draw(stack, ax, panel, seconds):
    defaults, kind = panel["fieldConfig"]["defaults"], panel["type"]
    ax.set_title(f"{panel['title']} [{defaults['unit']}]", loc="left")
    series = list(series_of(stack, panel, seconds))
    if not series:
        ax.text(0.5, 0.5, "no data", ha="center", va="center", transform=ax.transAxes, color="red", fontsize=14)
        return

    def form(value, _=None):
        return human(value, defaults["unit"])

    if kind == "bargauge":
        bars = sorted((points[-1][1], legend) for legend, points in series)
        ax.barh([legend for _, legend in bars], [value for value, _ in bars], color="tab:green")
        ax.xaxis.set_major_formatter(form)
        return
    ax.set_xlabel("seconds before now", fontsize=7)
    if kind == "heatmap":
        draw_heatmap(ax, series, form)
        return
    end = max(points[-1][0] for _, points in series)
    told = []
    for legend, points in series:
        told.append(f"{legend} {form(round(points[-1][1], defaults.get('decimals', 9)))}")
        ax.plot([at - end for at, _ in points], [value for _, value in points], label=told[-1])
    ax.set_ylim(0, max(ax.get_ylim()[1] * 1.1, 1e-6))
    ax.yaxis.set_major_formatter(form)
    if kind == "stat":
        ax.text(0.5, 0.5, "\n".join(told), ha="center", va="center", transform=ax.transAxes,
                fontsize=16 if len(told) == 1 else 12)
    else:
        ax.legend(fontsize=7, loc="best")


def draw_heatmap(ax, series, form):
    """Prometheus counts what is at most `le`; a cell shows what lies between two bounds."""
    series = sorted(((float(legend), dict(points)) for legend, points in series))
    times = sorted(set().union(*(points for _, points in series)))
    below, cells = dict.fromkeys(times, 0.0), []
    for _, points in series:
        cells.append([max(0.0, points.get(at, below[at]) - below[at]) for at in times])
        below.update(points)
    ax.pcolormesh([at - times[-1] for at in times], range(len(series)), cells, cmap="Oranges", shading="nearest")
    ax.set_yticks(range(len(series)), ["more" if math.isinf(le) else f"≤ {form(le)}" for le, _ in series], fontsize=6)
    ax.grid(False)


def human(value, unit):
    scales = {"s": [(86400, " d"), (3600, " h"), (60, " min"), (1, " s"), (1e-3, " ms"), (1e-6, " µs")],
              "bytes": [(2**30, " GiB"), (2**20, " MiB"), (2**10, " KiB")],
              "percent": [(0, " %")], "reqps": [(0, " req/s")], "cps": [(0, "/s")], "THs": [(0, " TH/s")]}
    for scale, word in scales.get(unit, []):
        if abs(value) >= scale:
            return f"{value / (scale or 1):.3g}{word}"
    return f"{value:.4g}"


COMMANDS = {"run": keep_running, "panels": check_panels, "preview": preview, "alerts": check_alerts}


def main():
    words = sys.argv[1:]
    if words and words[0] not in COMMANDS and not words[0].startswith("-"):
        words.insert(0, "run")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("tbg", help="the program")
    parser.add_argument("--seconds", type=int, default=90, help="of load at least, before panels are asked")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "backend/results/dashboards.png", help="the picture")
    parser.add_argument("--stop", choices=FAILURES, action="append", help="what `alerts` freezes; both by default")
    options = parser.parse_args(words)

    # A polite request to end is handled like Ctrl-C, which a shell makes its background programs ignore.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    stack, done, tell = Stack(options.tbg), False, True
    try:
        print(f"game, exporters, Prometheus and Alertmanager are up after {stack.start():.1f} s", flush=True)
        load = Load(stack)
        load.start()
        done = COMMANDS[options.command](stack, options)
        load.stopped.set()
        answers = sorted(load.answers.items(), key=str)
        print("answers of the load:", ", ".join(f"{word} × {count}" for word, count in answers))
        tell = False
    except KeyboardInterrupt:
        done, tell = options.command == "run", False
    finally:
        stack.stop(tell_logs=tell)
    sys.exit(0 if done else 1)


if __name__ == "__main__":
    main()
