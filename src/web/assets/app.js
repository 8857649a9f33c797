// The page of narthex: what the address names is drawn from the HTTP API.
"use strict";

const page = document.getElementById("page");
const place = location.pathname.replace(/\/+$/, "").split("/").pop() || "graph";

const COLOURS = ["#c2410c", "#2563eb", "#15803d", "#a21caf", "#b45309", "#0e7490", "#be123c", "#4d7c0f", "#6d28d9", "#64748b"];
const MAX_DRAWN = 60;

for (const link of document.querySelectorAll("nav a")) {
  if (link.getAttribute("href") === (place === "query" ? "graph" : place)) link.setAttribute("aria-current", "page");
}

/** Makes an element; text is never read as HTML. */
function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

async function api(path, parameters = {}, signal) {
  const query = new URLSearchParams(parameters).toString();
  const response = await fetch("api/v1/" + path + (query ? "?" + query : ""), { signal });
  let answer;
  try { answer = await response.json(); } catch { throw new Error("HTTP " + response.status); }
  if (answer.status !== "success") throw new Error(answer.error || "HTTP " + response.status);
  return answer;
}

function metric(labels) {
  const { __name__: name = "", ...rest } = labels;
  const inner = Object.entries(rest).map(([k, v]) => `${k}=${JSON.stringify(v)}`).join(", ");
  return name + (inner || !name ? `{${inner}}` : "");
}

function table(heads, rows) {
  return el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, ...heads.map((h) => el("th", {}, h)))),
    el("tbody", {}, ...rows.map((cells) => el("tr", {}, ...cells.map((c) => c instanceof HTMLTableCellElement ? c : el("td", {}, c)))))));
}

const number = (text) => el("td", { class: "number" }, text);
const badge = (state) => el("span", { class: "badge " + state }, state);
const seconds = (s) => (s < 1 ? (s * 1000).toFixed(1) + " ms" : s.toFixed(2) + " s");
const labelsOf = (labels) => el("code", {}, metric(labels));

function ago(text) {
  const time = Date.parse(text);
  if (!(time > 0)) return "never";
  return seconds(Math.max(0, (Date.now() - time) / 1000)) + " ago";
}

// ---------------------------------------------------------------- query

const RANGES = [["5m", 300], ["15m", 900], ["1h", 3600], ["6h", 21600], ["1d", 86400], ["7d", 604800], ["15d", 1296000]];

function durationSeconds(text) {
  const units = { ms: 0.001, s: 1, m: 60, h: 3600, d: 86400, w: 604800, y: 31536000 };
  let total = 0;
  for (const [, n, unit] of (text || "").matchAll(/(\d+)(ms|[smhdwy])/g)) total += n * units[unit];
  return total;
}

function queryPage() {
  const address = new URLSearchParams(location.search);
  const state = {
    expr: address.get("g0.expr") ?? address.get("expr") ?? (place === "graph" && location.search ? "" : "up"),
    table: ["1", "table"].includes(address.get("g0.tab")),
    range: durationSeconds(address.get("g0.range_input")) || 900,
    end: address.get("g0.end_input") || "",
  };
  const text = el("textarea", { spellcheck: "false", "aria-label": "PromQL expression", autocomplete: "off" });
  text.value = state.expr;
  const result = el("section", { "aria-live": "polite" });
  const names = el("datalist", { id: "names" });
  const ranges = el("select", { "aria-label": "Range", onchange: (e) => { state.range = +e.target.value; run(); } },
    ...RANGES.map(([label, s]) => el("option", { value: s, selected: s === state.range }, label)));
  if (!RANGES.some(([, s]) => s === state.range)) ranges.append(el("option", { value: state.range, selected: true }, state.range + "s"));
  const buttons = ["Graph", "Table"].map((label, i) => el("button", {
    type: "button", onclick: () => { state.table = i === 1; run(); },
  }, label));
  const finder = el("input", { type: "text", list: "names", placeholder: "Insert a metric", "aria-label": "Insert a metric",
    onchange: (e) => { text.value = text.value.trim() ? text.value + " " + e.target.value : e.target.value; e.target.value = ""; text.focus(); } });
  let running = null;

  async function run() {
    running?.abort();
    running = new AbortController();
    const { signal } = running;
    state.expr = text.value.trim();
    buttons.forEach((b, i) => b.setAttribute("aria-pressed", String(state.table === (i === 1))));
    if (!state.expr) { result.replaceChildren(); return; }
    const view = new URLSearchParams({ "g0.expr": state.expr, "g0.tab": state.table ? "1" : "0", "g0.range_input": state.range + "s" });
    if (state.end) view.set("g0.end_input", state.end);
    history.replaceState(null, "", "graph?" + view);
    const started = performance.now();
    try {
      const end = state.end ? Date.parse(state.end + "Z") / 1000 : Date.now() / 1000;
      const step = Math.max(1, Math.ceil(state.range / 500));
      const answer = state.table
        ? await api("query", { query: state.expr, time: end.toFixed(3) }, signal)
        : await api("query_range", { query: state.expr, start: (Math.floor(end / step) * step - state.range).toFixed(3), end: (Math.floor(end / step) * step).toFixed(3), step }, signal);
      const took = `${seconds((performance.now() - started) / 1000)}`;
      const notes = [...(answer.warnings || []), ...(answer.infos || [])].map((n) => el("p", { class: "warning" }, n));
      result.replaceChildren(...notes, ...(state.table ? drawTable(answer.data, took) : drawGraph(answer.data, took, state, result)));
    } catch (error) {
      if (error.name !== "AbortError") result.replaceChildren(el("p", { class: "error" }, error.message));
    }
  }

  text.addEventListener("keydown", (e) => { if (e.key === "Enter" && !e.shiftKey) { e.preventDefault(); run(); } });
  page.replaceChildren(
    el("form", { class: "query", onsubmit: (e) => { e.preventDefault(); run(); } }, text,
      el("div", { class: "row" }, el("button", { class: "main" }, "Execute"), ...buttons, ranges, finder, names)),
    result);
  api("label/__name__/values", { limit: 10000 }).then((a) => names.replaceChildren(...a.data.map((n) => el("option", { value: n })))).catch(() => {});
  run();
}

function drawTable({ resultType, result }, took) {
  const summary = (n) => el("p", { class: "quiet" }, `${n} series, ${took}`);
  if (resultType === "scalar" || resultType === "string") return [table(["Value"], [[number(result[1])]])];
  if (!result.length) return [el("p", { class: "quiet" }, "No data.")];
  const value = (s) => s.value ? s.value[1] : s.histogram ? `count ${s.histogram[1].count}, sum ${s.histogram[1].sum}`
    : (s.values || []).map(([t, v]) => `${v} @${t}`).join("\n");
  return [summary(result.length), table(["Series", "Value"], result.slice(0, 2000).map((s) => [labelsOf(s.metric), number(value(s))]))];
}

function drawGraph({ result }, took, state, holder) {
  const floats = result.filter((s) => s.values);
  if (!floats.length) return [el("p", { class: "quiet" }, result.length ? "Native histograms only: see the table." : "No data.")];
  const drawn = floats.slice(0, MAX_DRAWN);
  const times = [...new Set(drawn.flatMap((s) => s.values.map(([t]) => t)))].sort((a, b) => a - b);
  const at = new Map(times.map((t, i) => [t, i]));
  const data = [times, ...drawn.map((s) => {
    const line = new Array(times.length).fill(null);
    for (const [t, v] of s.values) { const y = Number(v); line[at.get(t)] = Number.isFinite(y) ? y : null; }
    return line;
  })];
  const style = getComputedStyle(document.body);
  const axis = { stroke: style.getPropertyValue("color"), grid: { stroke: "#8884", width: 1 }, ticks: { stroke: "#8884" } };
  const chart = el("div", { class: "chart" });
  requestAnimationFrame(() => {
    const plot = new uPlot({
      width: chart.clientWidth || 900, height: 360,
      series: [{}, ...drawn.map((s, i) => ({ label: metric(s.metric), stroke: COLOURS[i % COLOURS.length], width: 1.5, points: { show: times.length < 3 } }))],
      axes: [axis, { ...axis, size: 70 }], legend: { show: false }, cursor: { drag: { x: true, y: false } },
    }, data, chart);
    new ResizeObserver(() => plot.setSize({ width: chart.clientWidth, height: 360 })).observe(holder);
  });
  const legend = el("div", { class: "legend" }, ...drawn.map((s, i) => el("div", {}, el("i", { style: `background:${COLOURS[i % COLOURS.length]}` }), metric(s.metric))));
  const more = floats.length > drawn.length ? ` (${drawn.length} drawn)` : "";
  return [chart, el("p", { class: "quiet" }, `${floats.length} series${more}, ${took}`), legend];
}

// ---------------------------------------------------------------- the other pages

const byPool = (targets) => targets.reduce((m, t) => m.set(t.scrapePool, [...(m.get(t.scrapePool) || []), t]), new Map());

/** From which objects a target came, if it came from any. */
const origin = (t) => [t.definedBy, t.foundIn].filter(Boolean).join(" \u2192 ");

/** What the operator should know now. */
async function notices() {
  const { data } = await api("notifications");
  return data.map((n) => el("p", { class: "error" }, `${n.text} (since ${n.date})`));
}

async function targetsPage() {
  const [{ data }, told] = await Promise.all([api("targets"), notices()]);
  const pools = byPool(data.activeTargets);
  const parts = [...told];
  for (const [pool, targets] of [...pools].sort()) {
    const up = targets.filter((t) => t.health === "up").length;
    parts.push(el("h2", {}, `${pool} (${up}/${targets.length} up)`),
      table(["Endpoint", "State", "Labels", "Last scrape", "Took", "Error"], targets.map((t) => [
        el("a", { href: t.scrapeUrl }, t.scrapeUrl), badge(t.health),
        el("td", {}, labelsOf(t.labels), el("div", { class: "quiet" }, origin(t))),
        ago(t.lastScrape), number(seconds(t.lastScrapeDuration)), el("span", { class: "error" }, t.lastError)])));
  }
  if (!parts.length) parts.push(el("p", { class: "quiet" }, "No targets."));
  const dropped = data.droppedTargets?.length || 0;
  if (dropped) parts.push(el("p", { class: "quiet" }, `${dropped} discovered targets were dropped by relabeling.`));
  page.replaceChildren(...parts);
}

async function discoveryPage() {
  const [{ data }, { data: objects }, told] = await Promise.all([api("targets"), api("status/operator"), notices()]);
  const [active, dropped] = [byPool(data.activeTargets), byPool(data.droppedTargets)];
  const parts = [...told];
  const named = (o) => `${o.kind} ${o.namespace}/${o.name}`;
  if (objects.rejected.length) parts.push(el("h2", {}, "Objects that cannot be used"),
    table(["Object", "Reason"], objects.rejected.map((o) => [named(o), el("span", { class: "error" }, o.reason)])));
  if (objects.notSelected.length) parts.push(el("h2", {}, "Objects that are not selected"),
    table(["Object"], objects.notSelected.map((o) => [named(o)])));
  for (const pool of [...new Set([...active.keys(), ...Object.keys(data.droppedTargetCounts)])].sort()) {
    const [kept, gone] = [active.get(pool) || [], dropped.get(pool) || []];
    const rows = [...kept.map((t) => [t, labelsOf(t.labels)]), ...gone.map((t) => [t, el("span", { class: "quiet" }, "dropped")])];
    parts.push(el("h2", {}, `${pool} (${kept.length} active, ${data.droppedTargetCounts[pool] || 0} dropped)`),
      table(["From", "Discovered labels", "Target labels"], rows.slice(0, 500).map(([t, labels]) => [origin(t), labelsOf(t.discoveredLabels), labels])));
    if (rows.length > 500) parts.push(el("p", { class: "quiet" }, `${rows.length - 500} more are not shown.`));
  }
  if (!parts.length) parts.push(el("p", { class: "quiet" }, "Nothing is discovered."));
  page.replaceChildren(...parts);
}

async function rulesPage() {
  const { data } = await api("rules");
  const parts = data.groups.flatMap((g) => [el("h2", {}, `${g.name} — ${g.file}`),
    table(["Rule", "Expression", "State", "Last run", "Took", "Error"], g.rules.map((r) => [
      r.name, el("a", { href: "graph?" + new URLSearchParams({ "g0.expr": r.query, "g0.tab": "1" }) }, el("code", {}, r.query)),
      badge(r.type === "alerting" ? r.state : r.health), ago(r.lastEvaluation), number(seconds(r.evaluationTime)), el("span", { class: "error" }, r.lastError || "")]))]);
  page.replaceChildren(...(parts.length ? parts : [el("p", { class: "quiet" }, "No rules are configured.")]));
}

async function alertsPage() {
  const { data } = await api("alerts");
  page.replaceChildren(data.alerts.length
    ? table(["Alert", "State", "Labels", "Active since", "Value"], data.alerts.map((a) => [
        a.labels.alertname, badge(a.state), labelsOf(a.labels), a.activeAt, number(a.value)]))
    : el("p", { class: "quiet" }, "No alert is pending or firing."));
}

async function configPage() {
  const { data } = await api("status/config");
  page.replaceChildren(el("pre", {}, data.yaml));
}

async function statusPage() {
  const answers = await Promise.all(["status/buildinfo", "status/runtimeinfo", "status/tsdb", "status/flags"].map((p) => api(p)));
  const [build, runtime, tsdb, flags] = answers.map((a) => a.data);
  const pairs = (object) => table(["Name", "Value"], Object.entries(object).map(([k, v]) => [k, String(v)]));
  page.replaceChildren(el("h2", {}, "Build"), pairs(build), el("h2", {}, "Runtime"), pairs(runtime),
    el("h2", {}, "Storage"), pairs(tsdb.headStats),
    el("h2", {}, "Metrics with most series"), pairs(Object.fromEntries(tsdb.seriesCountByMetricName.map((e) => [e.name, e.value]))),
    el("h2", {}, "Flags"), pairs(flags));
}

const pages = { targets: targetsPage, "service-discovery": discoveryPage, rules: rulesPage, alerts: alertsPage, config: configPage, status: statusPage };
const show = pages[place];
if (show) {
  const refresh = () => show().catch((error) => page.replaceChildren(el("p", { class: "error" }, error.message)));
  refresh();
  if (["targets", "rules", "alerts"].includes(place)) setInterval(refresh, 10000);
} else {
  queryPage();
}
