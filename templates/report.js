"use strict";
/* The page's own code. All text from the campaign goes into the page by textContent, or through escaped(). */
(() => {
  const RELOAD_EVERY_MS = 30000;
  const ROWS = innerWidth < 640 ? 12 : 25; // of the table, on one page
  const KEPT_CURVES = 12; // of the chart; more lines are a ball of wool
  const FOUND = 24; // kept ideas and near misses, in a chart with a line for each
  const PANEL_POINTS = 1500; // experiments that were not kept, in a small panel
  const NUMBERED = 30; // kept ideas with their number beside the marker
  const data = JSON.parse(document.getElementById("data").textContent);
  const columns = data.columns;
  const count = columns.number.length;
  const lower = data.direction === "lower";
  const at = new Map(columns.number.map((number, index) => [number, index]));
  const by = (id) => document.getElementById(id);

  // ---- numbers as text, exactly as report/format.py writes them

  function general(value, digits) { // Python's %.{digits}g, but without an exponent up to a million
    if (value === 0) return "0";
    const [mantissa, power] = value.toExponential(digits - 1).split("e");
    const exponent = Number(power);
    const plain = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);
    if (exponent >= -4 && exponent < digits) return plain(value.toFixed(digits - 1 - exponent));
    if (exponent > 0 && Math.abs(value) < 1e6) return Number(value.toExponential(digits - 1)).toFixed(0);
    const size = String(Math.abs(exponent)).padStart(2, "0");
    return `${plain(mantissa)}e${exponent < 0 ? "-" : "+"}${size}`;
  }

  function number(value) {
    if (value === null || value === undefined) return "-";
    const size = Math.abs(value);
    return value === 0 || (size >= 1e-3 && size < 1e6) ? value.toFixed(6) : general(value, 9);
  }

  function signed(value) {
    if (value === null || value === undefined) return "-";
    return (value < 0 ? "" : "+") + general(value, 3);
  }

  function duration(seconds) {
    if (Math.round(seconds * 10) / 10 < 60) return `${seconds.toFixed(1)} s`;
    const whole = Math.round(seconds);
    if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
    const minutes = Math.round(seconds / 60);
    return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  }

  // The dollar sign too: plotly takes what stands between two of them for a formula.
  const escaped = (text) => String(text).replace(/[&<>"'$]/g, (char) => `&#${char.charCodeAt(0)};`);
  const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

  function element(name, attributes, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
    made.append(...children.filter((child) => child !== null));
    return made;
  }

  // ---- one experiment

  const statusOf = (index) => data.statuses[columns.status[index]];
  const groupOf = (index) => (columns.undone[index] ? "undone" : statusOf(index));
  const familyOf = (index) => data.families[columns.family[index]];
  const isBaseline = (index) => columns.incumbent[index] === null;
  const gainText = (index) => columns.gain[index] === null ? "-"
    : signed(columns.gain[index]) + (columns.margin[index] === null ? "" : ` ± ${general(columns.margin[index], 2)}`);

  const named = (trial) => ({
    seed: trial[0], purpose: data.purposes[trial[1]], outcome: data.outcomes[trial[2]],
    metric: trial[3], seconds: trial[4], attempt: trial[5],
  });
  const trialsOf = (index) => columns.trials[index].map(named);

  function valuesOf(index) { // seed -> metric, of the completed trials
    const values = new Map();
    for (const trial of trialsOf(index)) {
      if (trial.outcome === "completed" && trial.metric !== null && trial.purpose !== "claim" && trial.purpose !== "test") {
        values.set(trial.seed, trial.metric);
      }
    }
    return values;
  }

  function hoverText(index) {
    const seeds = [...valuesOf(index)].slice(0, 6).map(([seed, value]) => `${seed}: ${number(value)}`).join(", ");
    const lines = [
      `<b>#${columns.number[index]}</b> ${groupOf(index)}${columns.verdict[index] ? `, ${escaped(columns.verdict[index])}` : ""}`,
      escaped(cut(columns.description[index], 90)),
      `${escaped(data.metric)} ${number(columns.metric[index])}`,
    ];
    if (columns.gain[index] !== null) lines.push(`gain ${gainText(index)}, z ${columns.z[index] === null ? "-" : columns.z[index].toFixed(1)}`);
    if (seeds) lines.push(`seeds ${seeds}`);
    return lines.join("<br>");
  }

  // ---- what the reader has chosen lives in the address, so that a reload keeps it

  const defaults = { status: "", family: "", text: "", sort: "number", down: "1", page: "0", axis: "number", e: "", theme: "", watched: "" };
  const state = { ...defaults };

  function readState() {
    Object.assign(state, defaults);
    for (const [key, value] of new URLSearchParams(location.hash.slice(1))) if (key in defaults) state[key] = value;
  }

  function choose(changes) {
    Object.assign(state, changes);
    const kept = Object.entries(state).filter(([key, value]) => value !== defaults[key]);
    const hash = new URLSearchParams(kept).toString();
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  }

  // ---- colours

  const probe = element("span", { hidden: "" });
  document.body.append(probe);

  function colour(name) {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  }

  function applyTheme() {
    if (state.theme) document.documentElement.dataset.theme = state.theme;
    else delete document.documentElement.dataset.theme;
  }

  const isDark = () => state.theme ? state.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;

  // ---- charts

  const settings = { responsive: true, displayModeBar: false }; // dragging zooms in, a double click resets
  const narrow = () => innerWidth < 640;

  function layout(extra) {
    const ink = colour("faint"), grid = colour("grid");
    const axis = { gridcolor: grid, zeroline: false, linecolor: grid, tickfont: { size: 11 }, automargin: true };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: ink },
      margin: { l: 8, r: 8, t: 8, b: 8 }, hovermode: "closest", dragmode: narrow() ? false : "zoom",
      hoverlabel: { align: "left", bgcolor: colour("card"), bordercolor: colour("line"), font: { size: 12, color: colour("ink") } },
      legend: { orientation: "h", x: 0, y: -0.14, yanchor: "top", font: { size: 11.5 } },
      ...extra, xaxis: { ...axis, showgrid: false, ...extra.xaxis }, yaxis: { ...axis, ...extra.yaxis },
    };
  }

  function draw(id, traces, extra) {
    Plotly.react(id, traces, layout(extra), settings);
  }

  const place = (index) => (state.axis === "hours" ? columns.start[index] / 3600 : columns.number[index]);
  const indices = [...Array(count).keys()];
  const markerSize = () => Math.max(4, Math.min(11, 60 / Math.sqrt(count))) * (narrow() ? 0.8 : 1);

  function openOnClick(id) {
    if (!by(id).on) return; // nothing to draw there
    by(id).on("plotly_click", (event) => {
      const chosen = event.points.find((point) => point.customdata !== undefined && point.customdata !== null);
      if (chosen) showDetail(chosen.customdata);
    });
  }

  function points(name, chosen, y, marker, more) {
    return {
      type: "scatter", mode: "markers", name, x: chosen.map(place), y: chosen.map(y), hovertext: chosen.map(hoverText),
      customdata: chosen.map((index) => columns.number[index]), hovertemplate: "%{hovertext}<extra></extra>", marker, ...more,
    };
  }

  function beliefTraces() {
    const traces = [];
    const epochs = [...new Set(data.levels.map((level) => level[1]))];
    for (const epoch of epochs) {
      const levels = data.levels.filter((level) => level[1] === epoch);
      const x = levels.map((level) => place(at.get(level[0])));
      const y = levels.map((level) => level[2]), se = levels.map((level) => level[3]);
      if (epoch === data.epoch && data.credit && count) { // re-tests after the last decision count too
        x.push(state.axis === "hours" ? Math.max(place(count - 1), data.timeline.bin_s * data.timeline.completed.length / 3600) : place(count - 1) + 0.5);
        y.push(data.credit.level); se.push(data.credit.se);
      }
      const shape = { mode: "lines", type: "scatter", legendgroup: "best", showlegend: false };
      const edge = { ...shape, x, line: { shape: "hv", width: 0 }, hoverinfo: "skip" };
      traces.push({ ...edge, y: y.map((level, i) => level - data.bandSe * se[i]) });
      traces.push({ ...edge, y: y.map((level, i) => level + data.bandSe * se[i]), fill: "tonexty", fillcolor: colour("band") });
      traces.push({
        ...shape, x, y, name: "best so far, 95 % band", showlegend: epoch === data.epoch, line: { shape: "hv", width: 2.2, color: colour("keep") },
        text: se.map((error, i) => `best so far ${number(y[i])} ± ${general(data.bandSe * error, 2)} (95 %)`), hovertemplate: "%{text}<extra></extra>",
      });
    }
    return traces;
  }

  const wholeTicks = () => (state.axis === "number" && count <= 12 ? { dtick: 1 } : {}); // there is no experiment 0.5

  function axisTitle() {
    return narrow() ? undefined : { text: state.axis === "hours" ? "hours" : "experiment", font: { size: 12 } };
  }

  function drawProgress() {
    const size = markerSize();
    const measured = indices.filter((index) => columns.metric[index] !== null);
    const pick = (group) => measured.filter((index) => groupOf(index) === group);
    const metric = (index) => columns.metric[index];
    const traces = beliefTraces();
    if (data.records.length > 1) {
      const x = data.records.map((each) => place(at.get(each[0]))), y = data.records.map((each) => each[1]);
      x.push(place(count - 1)); y.push(y.at(-1));
      traces.push({
        type: "scatter", mode: "lines", name: "best single run, luck included", x, y, text: y.map((value) => `best single run ${number(value)}`),
        hovertemplate: "%{text}<extra></extra>", line: { shape: "hv", width: 1.3, dash: "dot", color: colour("luck") },
      });
    }
    const card = colour("card");
    const add = (name, chosen, marker, more) => chosen.length && traces.push(points(name, chosen, metric, marker, more));
    add("discarded", pick("discard"), { color: colour("discard"), size, opacity: 0.7 });
    add("kept, later undone", pick("undone"), { color: card, size: size * 1.15, line: { color: colour("keep"), width: 1.6 } });
    if (data.retests.length) {
      traces.push({
        type: "scatter", mode: "markers", name: "best, re-tested", x: data.retests.map((each) => place(at.get(each[0])) + (state.axis === "hours" ? 0 : 0.5)),
        y: data.retests.map((each) => each[1]), customdata: data.retests.map((each) => each[2]),
        text: data.retests.map((each) => `re-test of #${each[2]}, seed ${each[3]}<br>${escaped(data.metric)} ${number(each[1])}`),
        hovertemplate: "%{text}<extra></extra>", marker: { symbol: "diamond", size: size * 0.95, color: card, line: { color: colour("open"), width: 1.5 } },
      });
    }
    const kept = pick("keep");
    const numbered = kept.length <= NUMBERED && !narrow() && {
      mode: "markers+text", text: kept.map((index) => `#${columns.number[index]}`), textfont: { size: 11, color: colour("keep") },
      textposition: lower ? "bottom center" : "top center",
    };
    add("kept", kept, { color: colour("keep"), size: size * 1.4, line: { color: card, width: 1 } }, numbered);
    add("open", pick("open"), { color: card, size: size * 1.3, line: { color: colour("open"), width: 2 } });
    const extra = { xaxis: { title: axisTitle(), ...wholeTicks() }, yaxis: {} };
    if (data.window) {
      const [low, high] = data.window, height = high - low;
      const edge = (share) => (lower ? high - share * height : low + share * height);
      extra.yaxis.range = [low, high];
      const beyond = measured.filter((index) => metric(index) < low || metric(index) > high);
      if (beyond.length) {
        const inside = (index) => (metric(index) > high ? high - 0.05 * height : low + 0.05 * height);
        const symbol = beyond.map((index) => (metric(index) > high ? "triangle-up" : "triangle-down"));
        const shade = beyond.map((index) => colour(groupOf(index) === "keep" ? "keep" : "discard"));
        traces.push(points("beyond the edge", beyond, inside, { symbol, size: size * 0.9, color: shade, opacity: 0.7 }));
      }
      const crashed = indices.filter((index) => statusOf(index) === "crash");
      if (crashed.length) traces.push(points("crashed", crashed, () => edge(0.018), { symbol: "x-thin", size, line: { color: colour("crash"), width: 1.6 } }));
    } else {
      extra.xaxis.visible = extra.yaxis.visible = false;
      extra.annotations = [{ text: "No experiment has given a metric yet.", showarrow: false, font: { size: 15 } }];
    }
    draw("progress-chart", traces, extra);
  }

  function drawFound() {
    const kept = indices.filter((index) => statusOf(index) === "keep" && !isBaseline(index) && columns.gain[index] !== null);
    const near = indices.filter((index) => statusOf(index) === "discard" && columns.verdict[index] === "inconclusive" && columns.z[index] > 0.5)
      .sort((a, b) => columns.z[b] - columns.z[a]).slice(0, Math.max(0, Math.min(6, FOUND - kept.length)));
    const largest = kept.sort((a, b) => columns.gain[b] - columns.gain[a]).slice(0, FOUND);
    const chosen = [...near.reverse(), ...largest.reverse()];
    by("found").hidden = !chosen.length;
    if (!chosen.length) return;
    by("found-chart").style.height = `${70 + 25 * chosen.length}px`;
    const width = narrow() ? 22 : 58;
    const shades = chosen.map((index) => colour(statusOf(index) === "keep" ? "keep" : "discard"));
    draw("found-chart", [{
      type: "scatter", mode: "markers", x: chosen.map((index) => columns.gain[index]), y: chosen.map((_, row) => row),
      error_x: { type: "data", array: chosen.map((index) => columns.margin[index] || 0), color: colour("discard"), thickness: 1.3, width: 0 },
      marker: { size: 9, color: shades }, text: chosen.map(hoverText), customdata: chosen.map((index) => columns.number[index]),
      hovertemplate: "%{text}<extra></extra>",
    }], {
      shapes: [{ type: "line", x0: 0, x1: 0, yref: "paper", y0: 0, y1: 1, line: { color: colour("line"), width: 1.2 } }],
      yaxis: {
        tickvals: chosen.map((_, row) => row), showgrid: false, range: [-0.7, chosen.length - 0.3],
        ticktext: chosen.map((index) => `${escaped(cut(columns.description[index], width))} <b>#${columns.number[index]}</b>`), tickfont: { color: colour("ink"), size: 12 },
      },
      xaxis: { showgrid: true, nticks: narrow() ? 4 : 9 }, showlegend: false,
    });
  }

  function curveOf(index, seed) {
    const detail = data.details[columns.number[index]];
    const curve = detail && detail.curves && (seed === undefined ? Object.values(detail.curves)[0] : detail.curves[seed]);
    if (!curve) return null;
    return { x: curve.filter((_, i) => i % 2 === 0), y: curve.filter((_, i) => i % 2 === 1) };
  }

  /** A range that shows the later part of the curves and not the first steps' cliff. */
  function curveRange(curves) {
    const late = curves.flatMap((curve) => curve.y.filter((_, i) => curve.x[i] >= 0.12));
    if (!late.length) return undefined;
    const low = Math.min(...late), high = Math.max(...late), room = (high - low) * 0.06 || 1;
    return [low - room, high + room];
  }

  function drawCurves() {
    const kept = indices.filter((index) => statusOf(index) === "keep" && curveOf(index));
    const step = Math.max(1, Math.ceil((kept.length - 1) / (KEPT_CURVES - 1)));
    const chosen = kept.filter((_, i) => (kept.length - 1 - i) % step === 0 || i === 0);
    by("curves").hidden = !chosen.length;
    if (!chosen.length) return;
    const curves = chosen.map((index) => curveOf(index));
    const traces = curves.map((curve, i) => ({
      type: "scatter", mode: "lines", ...curve, name: `#${columns.number[chosen[i]]} ${escaped(cut(columns.description[chosen[i]], 28))}`,
      line: { width: i === chosen.length - 1 ? 2.4 : 1.3, color: i === chosen.length - 1 ? colour("keep") : shade(i / Math.max(chosen.length - 1, 1)) },
      hovertemplate: `#${columns.number[chosen[i]]}: %{y:.5g} at %{x:.0%}<extra></extra>`,
    }));
    draw("curves-chart", traces, { yaxis: { range: curveRange(curves) }, xaxis: { tickformat: ".0%" }, showlegend: !narrow() });
  }

  /** From the discards' grey to the colour of what is open, early ones first. */
  function shade(share) {
    const parts = (name) => colour(name).match(/[\d.]+/g).map(Number);
    const from = parts("discard"), to = parts("open");
    return `rgb(${from.slice(0, 3).map((value, i) => Math.round(value + (to[i] - value) * share)).join(",")})`;
  }

  function quantityTraces(values) {
    const size = Math.max(4, markerSize() * 0.7);
    const chosen = indices.filter((index) => values[index] !== null && values[index] !== undefined);
    const kept = chosen.filter((index) => statusOf(index) === "keep");
    const others = chosen.filter((index) => statusOf(index) !== "keep");
    const step = Math.ceil(others.length / PANEL_POINTS);
    const rest = others.filter((_, i) => i % step === 0);
    const value = (index) => values[index];
    const text = (list) => ({ hovertext: list.map((index) => `<b>#${columns.number[index]}</b> ${general(values[index], 6)}<br>${escaped(cut(columns.description[index], 60))}`) });
    return [
      points("others", rest, value, { size, color: colour("discard"), opacity: 0.6 }, text(rest)),
      points("kept", kept, value, { size: size * 1.5, color: colour("keep") }, { ...text(kept), mode: "lines+markers", line: { shape: "hv", width: 1.2, color: colour("keep") } }),
    ];
  }

  function drawPanels() {
    const isMeasured = (values) => values.some((value) => value !== null && value !== undefined);
    by("memory-chart").closest("section").hidden = !isMeasured(columns.memory);
    draw("memory-chart", quantityTraces(columns.memory), { showlegend: false, xaxis: wholeTicks() });
    const names = Object.keys(data.watched || {}).filter((each) => isMeasured(data.watched[each]));
    by("watched-chart").closest("section").hidden = !names.length;
    const name = names.includes(state.watched) ? state.watched : names.find((each) => /tok|mfu|throughput|speed|_per_/i.test(each)) || names[0];
    const select = by("watched");
    if (!select.options.length) select.append(...names.map((each) => element("option", { value: each }, each)));
    if (name !== undefined) {
      select.value = name;
      draw("watched-chart", quantityTraces(data.watched[name]), { showlegend: false, xaxis: wholeTicks() });
    }
  }

  function drawTime() {
    const spent = data.timeline, bins = spent.completed.length;
    const unit = spent.bin_s * bins > 7200 ? ["h", 3600] : ["min", 60];
    const x = [...Array(bins).keys()].map((bin) => ((bin + 0.5) * spent.bin_s) / unit[1]);
    const bars = (key, name, shade, more) => ({
      type: "bar", name, x, y: spent[key].map((seconds) => seconds / spent.bin_s), marker: { color: shade }, width: spent.bin_s / unit[1],
      hovertemplate: `${name}: %{y:.0%}<extra></extra>`, ...more,
    });
    const used = (key) => spent[key].some((seconds) => seconds > 0);
    const kinds = [["completed", "trials completed", "keep"], ["running", "running now", "open"], ["pruned", "pruned", "luck"], ["failed", "failed", "crash"]];
    const traces = kinds.filter(([key]) => used(key)).map(([key, name, shade]) => bars(key, name, colour(shade)));
    traces.push(bars("thinking", "the agent thinks", colour("discard"), { yaxis: "y2" }));
    const grid = colour("grid");
    draw("time-chart", traces, {
      barmode: "stack", bargap: 0,
      xaxis: { title: { text: unit[0] === "h" ? "hours" : "minutes", font: { size: 12 }, standoff: 4 }, anchor: "y2" },
      yaxis: { domain: [0.42, 1], tickformat: ".0%", nticks: 4, rangemode: "tozero" },
      yaxis2: { domain: [0, 0.3], tickformat: ".0%", nticks: 3, gridcolor: grid, rangemode: "tozero", tickfont: { size: 11 }, automargin: true, zeroline: false },
      legend: { orientation: "h", x: 0, y: narrow() ? -0.4 : -0.28, yanchor: "top", font: { size: 11.5 } },
    });
  }

  function drawComparison() {
    const shades = ["open", "keep", "luck", "crash", "discard"];
    const traces = data.comparison.filter((each) => each.points.length).map((each, i) => ({
      type: "scatter", mode: "lines", name: `${escaped(each.tag)} (${escaped(each.metric)})`,
      x: each.points.map((point) => point[state.axis === "hours" ? 1 : 0]), y: each.points.map((point) => point[2]),
      line: { shape: "hv", width: 2, color: colour(shades[i % shades.length]), dash: ["solid", "dash", "dot"][Math.floor(i / shades.length) % 3] },
      hovertemplate: `${escaped(each.tag)}: %{y:+.3g} at %{x}<extra></extra>`,
    }));
    draw("comparison-chart", traces, { showlegend: true, yaxis: { title: { text: "credited gain", font: { size: 12 } } }, xaxis: { title: axisTitle() } });
  }

  function drawAll() {
    if (data.comparison) drawComparison();
    if (!count) return;
    drawProgress(); drawFound(); drawCurves(); drawPanels(); drawTime();
  }

  // ---- the table

  const numeric = (values) => (index) => (values[index] === null || values[index] === undefined ? null : values[index]);
  const fields = [
    { key: "number", title: "#", n: true, of: numeric(columns.number), text: (index) => String(columns.number[index]) },
    { key: "status", title: "status", of: groupOf },
    { key: "metric", title: data.metric, n: true, of: numeric(columns.metric), text: (index) => number(columns.metric[index]) },
    { key: "gain", title: "gain ± 95 %", n: true, of: numeric(columns.gain), text: gainText, minor: true },
    { key: "z", title: "z", n: true, of: numeric(columns.z), text: (index) => (columns.z[index] === null ? "-" : columns.z[index].toFixed(1)), minor: true },
    { key: "trials", title: "trials", n: true, of: (index) => columns.trials[index].length, text: (index) => String(columns.trials[index].length), minor: true },
    { key: "lines", title: "lines", n: true, of: (index) => columns.added[index] - columns.deleted[index], text: (index) => `+${columns.added[index]} -${columns.deleted[index]}`, minor: true },
    { key: "family", title: "family", of: familyOf, text: familyOf, minor: true },
    { key: "description", title: "description", of: (index) => columns.description[index].toLowerCase() },
  ];
  let shown = [];

  function pill(group) {
    return element("span", { class: `status ${group}` }, group);
  }

  function compared(a, b) {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a) < String(b) ? -1 : String(a) > String(b) ? 1 : 0;
  }

  function filter() {
    const words = state.text.toLowerCase().split(/\s+/).filter(Boolean);
    const haystack = (index) => `#${columns.number[index]} ${columns.commit[index]} ${columns.description[index]} ${familyOf(index)}`.toLowerCase();
    shown = indices.filter((index) => (!state.status || groupOf(index) === state.status)
      && (!state.family || familyOf(index) === (state.family === "(none)" ? "" : state.family))
      && words.every((word) => haystack(index).includes(word)));
    const field = fields.find((each) => each.key === state.sort) || fields[0];
    const turn = state.down === "1" ? -1 : 1;
    const values = new Map(shown.map((index) => [index, field.of(index)]));
    shown.sort((a, b) => {
      const x = values.get(a), y = values.get(b);
      if (x === null || y === null) return (x === null) - (y === null) || a - b; // what has no value comes last
      return turn * compared(x, y) || turn * (a - b);
    });
  }

  function fillTable() {
    filter();
    const pages = Math.max(1, Math.ceil(shown.length / ROWS));
    const page = Math.min(Number(state.page) || 0, pages - 1);
    const rows = shown.slice(page * ROWS, (page + 1) * ROWS).map((index) => {
      const row = element("tr", { tabindex: "0", "data-number": columns.number[index] });
      for (const field of fields) {
        const cell = element("td", { class: [field.n ? "n" : "", field.minor ? "minor" : "", field.key === "description" ? "text" : ""].join(" ").trim() });
        if (field.key === "status") cell.append(pill(groupOf(index)));
        else if (field.key === "description") cell.textContent = cut(columns.description[index], 160);
        else cell.textContent = field.text(index);
        if (field.key === "gain" && columns.margin[index] !== null) {
          if (columns.gain[index] - columns.margin[index] > 0) cell.classList.add("better");
          if (columns.gain[index] + columns.margin[index] < 0) cell.classList.add("worse");
        }
        row.append(cell);
      }
      return row;
    });
    document.querySelector("#table tbody").replaceChildren(...rows);
    by("shown").textContent = shown.length === count ? `${count}` : `${shown.length} of ${count}`;
    by("page").textContent = `${page + 1} of ${pages}`;
    by("previous").disabled = page === 0;
    by("next").disabled = page === pages - 1;
    document.querySelector(".pages").hidden = pages === 1;
    for (const head of document.querySelectorAll("#table th")) {
      if (head.dataset.key === state.sort) head.setAttribute("aria-sort", state.down === "1" ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    for (const button of document.querySelectorAll("#statuses button")) {
      button.setAttribute("aria-pressed", String(button.dataset.status === state.status));
    }
  }

  function buildTable() {
    const heads = fields.map((field) => element("th", { "data-key": field.key, class: `${field.n ? "n" : ""} ${field.minor ? "minor" : ""}`.trim() }, element("button", { type: "button" }, field.title)));
    document.querySelector("#table thead tr").append(...heads);
    document.querySelector("#table thead").addEventListener("click", (event) => {
      const head = event.target.closest("th");
      if (!head) return;
      const same = head.dataset.key === state.sort;
      const startsDown = head.classList.contains("n");
      choose({ sort: head.dataset.key, down: same ? (state.down === "1" ? "0" : "1") : startsDown ? "1" : "0", page: "0" });
      fillTable();
    });
    const groups = ["keep", "undone", "discard", "crash", "open"];
    const tally = new Map(groups.map((group) => [group, 0]));
    for (const index of indices) tally.set(groupOf(index), tally.get(groupOf(index)) + 1);
    const buttons = [element("button", { type: "button", "data-status": "" }, "all")];
    for (const group of groups) if (tally.get(group)) buttons.push(element("button", { type: "button", "data-status": group }, `${group} ${tally.get(group)}`));
    by("statuses").append(...buttons);
    by("statuses").addEventListener("click", (event) => {
      if (event.target.dataset.status === undefined) return;
      choose({ status: event.target.dataset.status, page: "0" });
      fillTable();
    });
    const families = data.families.map((family) => family || "(none)");
    by("family").append(element("option", { value: "" }, "all families"), ...families.map((family) => element("option", { value: family }, family)));
    by("family").addEventListener("change", (event) => { choose({ family: event.target.value, page: "0" }); fillTable(); });
    by("search").addEventListener("input", (event) => { choose({ text: event.target.value, page: "0" }); fillTable(); });
    by("previous").addEventListener("click", () => { choose({ page: String(Math.max(0, Number(state.page) - 1)) }); fillTable(); });
    by("next").addEventListener("click", () => { choose({ page: String(Number(state.page) + 1) }); fillTable(); });
    const body = document.querySelector("#table tbody");
    const open = (event) => { const row = event.target.closest("tr"); if (row) showDetail(Number(row.dataset.number)); };
    body.addEventListener("click", open);
    body.addEventListener("keydown", (event) => { if (event.key === "Enter") open(event); });
  }

  // ---- the details of one experiment

  const dialog = by("detail");

  function section(title, ...content) {
    return [element("h3", {}, title), ...content];
  }

  function trialTable(index) {
    const incumbent = columns.incumbent[index] === null ? undefined : at.get(columns.incumbent[index]);
    const beside = incumbent === undefined ? new Map() : valuesOf(incumbent);
    const titles = ["seed", "purpose", "outcome", data.metric, ...(beside.size ? [`#${columns.incumbent[index]}`, "gain"] : []), "time"];
    const rows = trialsOf(index).map((trial) => {
      const theirs = beside.get(trial.seed);
      const gain = theirs === undefined || trial.metric === null ? null : (lower ? theirs - trial.metric : trial.metric - theirs);
      const cells = [String(trial.seed), trial.purpose, trial.outcome.replace("_", " "), number(trial.metric)];
      if (beside.size) cells.push(number(theirs), signed(gain));
      cells.push(duration(trial.seconds));
      return element("tr", {}, ...cells.map((cell, i) => element("td", { class: i === 1 || i === 2 ? "" : "n" }, cell)));
    });
    const head = element("tr", {}, ...titles.map((title, i) => element("th", { class: i === 1 || i === 2 ? "" : "n" }, title)));
    return element("div", { class: "scroll" }, element("table", { class: "plain" }, element("thead", {}, head), element("tbody", {}, ...rows)));
  }

  function diffView(diff) {
    const lines = diff.split("\n").filter((line) => !/^(diff --git|index |--- |\+\+\+ )/.test(line) || line.startsWith("+++ "));
    const kind = (line) => (line.startsWith("+++") || line.startsWith("@@") ? "at" : line.startsWith("+") ? "add" : line.startsWith("-") ? "del" : "");
    return element("pre", { class: "diff" }, ...lines.map((line) => element("span", { class: kind(line) }, line || " ")));
  }

  function detailCurves(index) {
    const detail = data.details[columns.number[index]];
    const seeds = Object.keys((detail && detail.curves) || {});
    if (!seeds.length) return [];
    const chart = element("div", { class: "chart low", id: "detail-chart" });
    return section("Learning curve", chart);
  }

  function drawDetailCurves(index) {
    if (!by("detail-chart")) return;
    const incumbent = columns.incumbent[index] === null ? undefined : at.get(columns.incumbent[index]);
    const seeds = Object.keys(data.details[columns.number[index]].curves);
    const seed = (incumbent !== undefined && seeds.find((each) => curveOf(incumbent, each))) || seeds[0];
    const traces = [], curves = [];
    const add = (which, name, shade, width) => {
      const curve = curveOf(which, seed);
      if (!curve) return;
      curves.push(curve);
      traces.push({ type: "scatter", mode: "lines", ...curve, name, line: { color: shade, width }, hovertemplate: "%{y:.5g} at %{x:.0%}<extra></extra>" });
    };
    if (incumbent !== undefined) add(incumbent, `#${columns.number[incumbent]}, the incumbent, seed ${seed}`, colour("discard"), 1.6);
    add(index, `#${columns.number[index]}, seed ${seed}`, colour(statusOf(index) === "keep" ? "keep" : "open"), 2.2);
    draw("detail-chart", traces, { yaxis: { range: curveRange(curves), title: { text: "training loss", font: { size: 12 } } }, xaxis: { tickformat: ".0%" }, showlegend: true });
  }

  function showDetail(wanted) {
    const index = at.get(Number(wanted));
    if (index === undefined) return;
    const detail = data.details[columns.number[index]];
    const facts = [
      `${data.metric} ${number(columns.metric[index])}`,
      columns.gain[index] === null ? null : `gain ${gainText(index)}`,
      columns.z[index] === null ? null : `z ${columns.z[index].toFixed(1)}`,
      columns.memory[index] === null ? null : `${general(columns.memory[index], 6)} MiB`,
      `+${columns.added[index]} -${columns.deleted[index]} lines`,
      familyOf(index) || null,
      columns.verdict[index] || null,
    ].filter(Boolean);
    const body = [
      element("h2", { id: "detail-title" }, `#${columns.number[index]} `, pill(groupOf(index)), ` ${columns.description[index]}`),
      element("div", { class: "facts" }, ...facts.map((fact) => element("span", {}, fact))),
    ];
    if (detail) {
      if (detail.reason) body.push(...section("Why", element("p", { class: "prose" }, detail.reason)));
      if (detail.undone) body.push(...section("Undone", element("p", { class: "prose" }, detail.undone)));
      if (detail.note) body.push(...section("The agent's note", element("p", { class: "prose" }, detail.note)));
    }
    if (columns.trials[index].length) body.push(...section("Seeds and values", trialTable(index)));
    if (detail && detail.failures) body.push(...section("What failed", ...detail.failures.map(([seed, reason]) => element("p", { class: "prose" }, `seed ${seed}: ${reason}`))));
    body.push(...detailCurves(index));
    if (detail && detail.diff) body.push(...section("Diff", diffView(detail.diff)));
    if (detail && detail.commit) body.push(...section("Commit", element("code", {}, detail.parent === detail.commit ? detail.commit : `git diff ${detail.parent.slice(0, 12)} ${detail.commit.slice(0, 12)}`)));
    if (!detail) body.push(element("p", { class: "faint" }, `Curves, diff and reason of commit ${columns.commit[index]} are left out to keep this page small: git show ${columns.commit[index]}`));
    by("detail-body").replaceChildren(...body);
    const row = shown.indexOf(index);
    by("detail-previous").disabled = row <= 0;
    by("detail-next").disabled = row < 0 || row === shown.length - 1;
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    choose({ e: String(columns.number[index]) });
    drawDetailCurves(index);
  }

  function buildDetail() {
    const move = (by) => { const next = shown[shown.indexOf(at.get(Number(state.e))) + by]; if (next !== undefined) showDetail(columns.number[next]); };
    by("detail-close").addEventListener("click", () => dialog.close());
    by("detail-previous").addEventListener("click", () => move(-1));
    by("detail-next").addEventListener("click", () => move(1));
    dialog.addEventListener("close", () => choose({ e: "" }));
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  }

  // ---- the page

  function followState() {
    readState();
    applyTheme();
    by("search") && (by("search").value = state.text);
    by("family") && (by("family").value = state.family);
    for (const button of document.querySelectorAll("[data-axis]")) button.setAttribute("aria-pressed", String(button.dataset.axis === state.axis));
    drawAll();
    if (!count) return;
    fillTable();
    if (state.e) showDetail(state.e);
  }

  /** A page of a running campaign looks for a newer version of itself, unless it is being read in depth. */
  function refresh() {
    if (!data.liveUntil) return;
    const until = Date.parse(data.liveUntil);
    if (Date.now() > until) return;
    by("live").hidden = false;
    const timer = setInterval(() => {
      if (Date.now() > until) { clearInterval(timer); by("live").hidden = true; return; }
      if (!dialog.open && document.activeElement !== by("search") && !document.hidden) location.reload();
    }, RELOAD_EVERY_MS);
  }

  if (count) { buildTable(); buildDetail(); }
  followState();
  if (count) {
    for (const id of ["progress-chart", "memory-chart", "watched-chart"]) openOnClick(id);
    if (!by("found").hidden) openOnClick("found-chart");
    for (const button of document.querySelectorAll("[data-axis]")) button.addEventListener("click", () => { choose({ axis: button.dataset.axis }); followState(); });
    by("watched").addEventListener("change", (event) => { choose({ watched: event.target.value }); drawPanels(); });
  }
  by("theme").addEventListener("click", () => { choose({ theme: isDark() ? "light" : "dark" }); applyTheme(); drawAll(); if (dialog.open) drawDetailCurves(at.get(Number(state.e))); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  addEventListener("hashchange", followState);
  refresh();
})();
