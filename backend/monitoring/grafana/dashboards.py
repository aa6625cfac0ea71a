#!/usr/bin/env python3
"""The four dashboards (contract production.md §12), as data; this program writes Grafana's JSON from it.

    dashboards.py            write dashboards/*.json
    dashboards.py --check    fail when a file there is not what this source gives, or is not sound

A row of panels fills the grid's width. A panel's id comes from its title: links to it survive a new order.
"""

import json
import sys
import zlib
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).resolve().parent / "dashboards"
DATASOURCE = {"type": "prometheus", "uid": "prometheus"}
COLUMNS = 24
# The height of a row is that of its tallest panel.
HEIGHTS = {"graph": 8, "bars": 8, "heatmap": 8, "stat": 5}
PANEL_TYPES = {"graph": "timeseries", "bars": "bargauge", "heatmap": "heatmap", "stat": "stat"}
UNITS = {"reqps", "percent", "s", "short", "bytes", "THs", "cps"}


class Panel(NamedTuple):
    """One panel. `queries` maps a legend to PromQL; a legend may name labels, as in {{handler}}."""

    title: str
    queries: dict
    unit: str
    kind: str
    description: str
    # Where the colour turns to yellow and to red; both None: it never does.
    warn: float | None = None
    bad: float | None = None
    decimals: int | None = None


def quantile(q, metric):
    return f"histogram_quantile({q}, sum by (le) (rate({metric}_bucket[5m])))"


HTTP = "http_request_duration_seconds"
DISKS = '{fstype!~"tmpfs|ramfs|overlay|squashfs"}'

ERRORS = '100 * sum(rate(http_requests_total{status="5xx"}[5m])) / sum(rate(http_requests_total[5m]))'

# uid → title, rows.
DASHBOARDS = {
    "api-overview": (
        "API overview",
        [
            [
                Panel("Requests", {"requests": "sum(rate(http_requests_total[5m]))"}, "reqps", "graph",
                      "Answered requests a second of all replicas, probes and sockets left out."),
                Panel("Errors", {"5xx": ERRORS}, "percent", "graph",
                      "Share of requests answered with 5xx. HighErrorRate fires above 1 %.", 0.5, 1),
            ],
            [
                Panel("Latency", {f"p{int(q * 100)}": quantile(q, HTTP) for q in (0.5, 0.95, 0.99)}, "s", "graph",
                      "Time to answer. HighLatency fires when p99 stays above 0.5 s.", 0.2, 0.5),
                Panel("Open sockets", {"sockets": "sum(tbg_ws_active_connections)"}, "short", "graph",
                      "Open WebSockets of all replicas.", decimals=0),
            ],
            [
                Panel("Rate limit denials", {"{{tier}}": "sum by (tier) (rate(tbg_rate_limit_hits_total[5m]))"},
                      "reqps", "graph",
                      "Refused requests a second by tier. RateLimitSpike fires above 100 in sum.", 50, 100),
                Panel("Slowest routes",
                      {"{{handler}}": f"topk(10, sum by (handler) (rate({HTTP}_sum[5m]))"
                                      f" / sum by (handler) (rate({HTTP}_count[5m])))"},
                      "s", "bars", "The ten routes with the highest mean time to answer.", 0.2, 0.5),
            ],
        ],
    ),
    "mining": (
        "Mining",
        [
            [
                Panel("Pool hashrate", {"hashrate": "max(tbg_mining_pool_hashrate_ths)"}, "THs", "stat",
                      "Sum over all workers, from the shares of the last five minutes."),
                Panel("Active workers", {"workers": "max(tbg_mining_active_workers)"}, "short", "stat",
                      "Workers that are online. WorkerOffline fires after 30 minutes with none.", decimals=0),
                Panel("Blocks found", {"blocks": "max(tbg_mining_blocks_found_total)"}, "short", "stat",
                      "All blocks the pool ever found.", decimals=0),
            ],
            [
                Panel("Shares", {"{{status}}": "sum by (status) (rate(tbg_mining_shares_total[5m]))"}, "cps", "graph",
                      "Shares a second that were applied, each once."),
                Panel("Rejected shares",
                      {"rejected": '100 * sum(rate(tbg_mining_shares_total{status="rejected"}[5m]))'
                                   " / sum(rate(tbg_mining_shares_total[5m]))"},
                      "percent", "graph", "A sudden rise points at the pool or at the network to it.", 2, 5),
                Panel("Dead letters", {"{{reason}}": "sum by (reason) (rate(tbg_dead_letters_total[5m]))"},
                      "cps", "graph", "Pool events a second that were refused and kept, by reason."),
            ],
        ],
    ),
    "gamification": (
        "Gamification",
        [
            [
                Panel("XP awarded", {"{{source}}": "sum by (source) (rate(tbg_gamification_xp_awarded_total[1h]))"},
                      "cps", "graph", "Experience points a second by what they were given for."),
            ],
            [
                Panel("Badges today", {"badges": "sum(increase(tbg_gamification_badges_awarded_total[24h]))"},
                      "short", "stat", "Badges awarded in the last 24 hours.", decimals=0),
                Panel("Lottery draws", {"draws": "max(tbg_gamification_lottery_draws_total)"}, "short", "stat",
                      "Weekly draws that are complete. It grows by one each Monday.", decimals=0),
                Panel("Active game sessions", {"players": "max(tbg_games_active_sessions)"}, "short", "stat",
                      "Players of the last 15 minutes.", decimals=0),
            ],
        ],
    ),
    "infrastructure": (
        "Infrastructure",
        [
            [
                Panel("Database pool",
                      {"{{instance}}": "max by (instance) (100 * (tbg_db_pool_size - tbg_db_pool_free)"
                                       " / tbg_db_pool_size)"},
                      "percent", "graph", "Connections in use. HighDBPoolUtilization fires above 80 %.", 60, 80),
                Panel("Redis pool",
                      {"{{instance}}": "max by (instance) (100 * tbg_redis_pool_active / tbg_redis_pool_size)"},
                      "percent", "graph", "Connections with a command in flight, and the dedicated ones.", 60, 80),
            ],
            [
                Panel("Database statements",
                      {"{{le}}": "sum by (le) (rate(tbg_db_query_duration_seconds_bucket[5m]))"},
                      "s", "heatmap", "How many statements a second take how long."),
                Panel("Redis latency", {"p95": quantile(0.95, "tbg_redis_command_duration_seconds")}, "s", "graph",
                      "Nineteen of twenty commands are faster.", 0.01, 0.05),
            ],
            [
                Panel("Processor", {"used": '100 * (1 - avg(rate(node_cpu_seconds_total{mode="idle"}[5m])))'},
                      "percent", "graph", "Time the processors were busy.", 70, 90),
                Panel("Memory", {"used": "100 * (1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes)"},
                      "percent", "graph", "Memory that cannot be had without swapping.", 80, 90),
                Panel("Disk",
                      {"{{mountpoint}}": f"100 * (1 - node_filesystem_avail_bytes{DISKS}"
                                         " / node_filesystem_size_bytes)"},
                      "percent", "graph", "Space in use. DiskSpaceLow fires above 85 %.", 75, 85),
            ],
            [
                Panel("Waiting events", {"events": "max(tbg_outbox_depth)"}, "short", "graph",
                      "Domain events that wait for their consumer. OutboxStuck fires by the age of the oldest.",
                      decimals=0),
                Panel("Longest jobs", {"{{task}}": "topk(10, max by (task) (tbg_job_duration_seconds))"}, "s", "bars",
                      "The ten jobs whose last run took longest."),
            ],
            [
                Panel("Backup age", {"{{kind}}": "time() - max by (kind) (tbg_backup_last_success_timestamp_seconds)"},
                      "s", "stat",
                      "Time since the last success. Limits: dump 26 hours, base 8 days, WAL 15 minutes."),
                Panel("Audit seal age", {"seal": "time() - max(tbg_audit_last_seal_timestamp_seconds)"}, "s", "stat",
                      "Time since the audit log was last sealed. AuditSealStale fires above two hours.", 3900, 7200),
            ],
        ],
    ),
}


def panel_json(panel, x, y, width, height):
    instant = panel.kind == "bars"
    targets = [
        {
            "refId": chr(ord("A") + number),
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": expr,
            "legendFormat": legend,
            "format": "heatmap" if panel.kind == "heatmap" else "time_series",
            "instant": instant,
            "range": not instant,
        }
        for number, (legend, expr) in enumerate(panel.queries.items())
    ]
    steps = [{"color": "green", "value": None}]
    steps += [{"color": color, "value": value} for color, value in (("yellow", panel.warn), ("red", panel.bad))
              if value is not None]
    defaults = {"unit": panel.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.decimals is not None:
        defaults["decimals"] = panel.decimals
    if panel.kind == "graph":
        defaults["color"] = {"mode": "palette-classic"}
        defaults["custom"] = {
            "drawStyle": "line", "lineWidth": 1, "fillOpacity": 10, "showPoints": "never", "spanNulls": False,
            "thresholdsStyle": {"mode": "dashed" if len(steps) > 1 else "off"},
        }
    else:
        defaults["color"] = {"mode": "thresholds"}
    return {
        "id": panel_id(panel),
        "type": PANEL_TYPES[panel.kind],
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": width, "h": height},
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options(panel),
    }


def options(panel):
    last = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    match panel.kind:
        case "graph":
            return {"legend": {"displayMode": "table", "placement": "bottom", "showLegend": True,
                               "calcs": ["lastNotNull", "max"]},
                    "tooltip": {"mode": "multi", "sort": "desc"}}
        case "bars":
            return {"reduceOptions": last, "orientation": "horizontal", "displayMode": "basic",
                    "valueMode": "text", "showUnfilled": True}
        case "heatmap":
            return {"calculate": False, "yAxis": {"unit": panel.unit, "axisPlacement": "left"},
                    "cellGap": 1, "legend": {"show": True}, "tooltip": {"mode": "single", "yHistogram": True},
                    "color": {"mode": "scheme", "scheme": "Oranges", "scale": "exponential", "exponent": 0.5,
                              "steps": 64}}
        case "stat":
            return {"reduceOptions": last, "orientation": "auto", "colorMode": "value", "graphMode": "area",
                    "justifyMode": "auto", "textMode": "value_and_name" if "{{" in str(panel.queries) else "value"}


def panel_id(panel):
    return zlib.crc32(panel.title.encode()) % 1_000_000 + 1


def dashboard_json(uid, title, rows):
    panels, y = [], 0
    for row in rows:
        width, height = COLUMNS // len(row), max(HEIGHTS[panel.kind] for panel in row)
        panels += [panel_json(panel, n * width, y, width, height) for n, panel in enumerate(row)]
        y += height
    return {
        "id": None,
        "uid": f"tbg-{uid}",
        "title": title,
        "tags": ["the-bitcoin-game"],
        "schemaVersion": 41,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "timezone": "utc",
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "refresh": "10s",
        "fiscalYearStartMonth": 0,
        "templating": {"list": []},
        "annotations": {"list": []},
        "links": [{"type": "dashboards", "title": "Dashboards", "tags": ["the-bitcoin-game"], "asDropdown": True,
                   "includeVars": False, "keepTime": True, "targetBlank": False, "icon": "external link",
                   "tooltip": "", "url": ""}],
        "panels": panels,
    }


def faults(dashboard):
    """What is wrong with a dashboard's JSON; nothing, usually."""
    for field, kind in (("uid", str), ("title", str), ("schemaVersion", int), ("time", dict), ("refresh", str),
                        ("panels", list), ("templating", dict), ("annotations", dict), ("tags", list)):
        if not isinstance(dashboard.get(field), kind) or not dashboard[field]:
            yield f"{field} is missing or no {kind.__name__}"
    cells, ids = {}, set()
    for panel in dashboard.get("panels", []):
        name = panel.get("title", "a panel without a title")
        for field in ("id", "type", "title", "description", "datasource", "gridPos", "targets", "fieldConfig",
                      "options"):
            if not panel.get(field):
                yield f"{name}: {field} is missing"
                return
        if panel["id"] in ids:
            yield f"{name}: its id {panel['id']} is taken"
        ids.add(panel["id"])
        if panel["type"] not in PANEL_TYPES.values():
            yield f"{name}: a panel of the kind {panel['type']}"
        if panel["fieldConfig"]["defaults"].get("unit") not in UNITS:
            yield f"{name}: its unit is none of ours"
        for part in [panel, *panel["targets"]]:
            if part.get("datasource") != DATASOURCE:
                yield f"{name}: another data source"
        letters = [target.get("refId") for target in panel["targets"]]
        if len(set(letters)) != len(letters) or not all(target.get("expr", "").strip() for target in panel["targets"]):
            yield f"{name}: an empty query, or two of one name"
        x, y, width, height = (panel["gridPos"][key] for key in "xywh")
        if x < 0 or y < 0 or width < 1 or height < 1 or x + width > COLUMNS:
            yield f"{name}: outside of the grid"
        for cell in ((column, line) for column in range(x, x + width) for line in range(y, y + height)):
            if cell in cells:
                yield f"{name}: lies on {cells[cell]}"
                break
            cells[cell] = name


def main():
    if sys.argv[1:] not in ([], ["--check"]):
        sys.exit(__doc__)
    check = sys.argv[1:] == ["--check"]
    wrong, panels = [], 0
    for uid, (title, rows) in DASHBOARDS.items():
        dashboard = dashboard_json(uid, title, rows)
        path = FOLDER / f"{uid}.json"
        text = json.dumps(dashboard, indent=2, ensure_ascii=False) + "\n"
        if not check:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        found = path.read_text(encoding="utf-8") if path.exists() else ""
        if found != text:
            wrong.append(f"{path.name} is not what dashboards.py gives: run it")
        try:
            wrong += [f"{path.name}: {fault}" for fault in faults(json.loads(found))]
        except ValueError as error:
            wrong.append(f"{path.name}: {error}")
        panels += len(dashboard["panels"])
    wrong += [f"{path.name}: no dashboard of dashboards.py" for path in FOLDER.glob("*.json")
              if path.stem not in DASHBOARDS]
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{len(DASHBOARDS)} dashboards, {panels} panels: sound")


if __name__ == "__main__":
    main()
