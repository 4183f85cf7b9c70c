
"use strict";
// What both pages use. Text is only ever set as text: names and reasons come from elsewhere.
const byId = (id) => document.getElementById(id);
const sum = (list, value) => list.reduce((total, item) => total + value(item), 0);
const SPAN = 300_000; // milliseconds that graphs show

function count(number) {
  return Math.round(number).toLocaleString("en");
}
function bytes(number) {
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (number < 1000) return (number < 10 && unit !== "B" ? number.toFixed(1) : count(number)) + " " + unit;
    number /= 1024;
  }
  return number.toFixed(1) + " TiB";
}
function micros(number) {
  if (number < 1000) return count(number) + " µs";
  if (number < 1_000_000) return (number / 1000).toFixed(number < 10_000 ? 1 : 0) + " ms";
  return (number / 1_000_000).toFixed(1) + " s";
}
function span(seconds) {
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const [size, unit] = parts.find(([size]) => seconds >= size) || [1, "s"];
  return Math.floor(seconds / size) + " " + unit;
}
const clock = (millis) => new Date(millis).toLocaleTimeString("en-GB");

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}
// Changed only where it is another, so that a screen reader says it once and a selection stays.
function say(node, text, className) {
  if (node.textContent !== text) node.textContent = text;
  if (className !== undefined && node.className !== className) node.className = className;
}
// Rows of a table. A cell is a text, [text, class] or a node; the first is the row's head. Rows that are alike stay.
function rows(id, lines, none) {
  const body = byId(id);
  if (lines.length === 0 && none) lines = [null];
  while (body.rows.length > lines.length) body.deleteRow(-1);
  lines.forEach((cells, index) => {
    const row = body.rows[index] || body.insertRow();
    if (cells === null) {
      const cell = element("td", none, "soft wide");
      cell.colSpan = 20;
      row.replaceChildren(cell);
      return;
    }
    if (row.cells.length !== cells.length || row.cells[0].tagName !== "TH") {
      row.replaceChildren(...cells.map((_, place) => element(place === 0 ? "th" : "td")));
      row.cells[0].scope = "row";
    }
    cells.forEach((cell, place) => {
      const node = row.cells[place];
      if (cell instanceof Node) node.replaceChildren(cell);
      else if (Array.isArray(cell)) say(node, String(cell[0]), cell[1] || "");
      else say(node, String(cell), "");
    });
  });
}

const SVG = "http://www.w3.org/2000/svg";
function drawn(tag, className, attributes) {
  const made = document.createElementNS(SVG, tag);
  if (className) made.setAttribute("class", className);
  for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
  return made;
}
// A graph of one or two series over the last minutes: { name, series: [{ name, value, shown, more }], most, step, blocks }.
// Samples have `at` in milliseconds; `blocks` fills the times at which `value` is above 0.
class Graph {
  constructor(place, options) {
    this.options = options;
    const figure = element("figure", undefined, "graph");
    this.figures = element("div", undefined, "figures");
    this.least = element("span");
    const range = element("div", undefined, "range");
    range.append(element("span", "-5 min"), this.least, element("span", "now"));
    this.svg = drawn("svg", "", { viewBox: "0 0 300 60", preserveAspectRatio: "none", role: "img", "aria-label": options.name });
    for (let minute = 1; minute < 5; minute += 1) {
      this.svg.append(drawn("line", "grid", { x1: minute * 60, x2: minute * 60, y1: 0, y2: 60 }));
    }
    this.shade = drawn("path", "shade");
    this.area = drawn("path", options.blocks ? `block ${options.className || ""}` : "area");
    this.lines = options.blocks ? [] : options.series.map((_, index) => drawn("path", index ? "line second" : "line"));
    this.cursor = drawn("line", "cursor", { y1: 0, y2: 60 });
    this.svg.append(this.shade, this.area, ...this.lines, this.cursor);
    this.values = options.series.map((series, index) => {
      const value = element("span");
      if (options.series.length > 1) value.append(element("span", undefined, index ? "key second" : "key"));
      const [number, more] = [element("span"), element("small", series.name)];
      value.append(number, more);
      this.figures.append(value);
      return [number, more];
    });
    figure.append(element("figcaption", options.name), this.figures, this.svg, range);
    place.append(figure);
  }
  // `back` is how long before now the figures are shown of, in milliseconds; 0 is now.
  show(samples, now, back) {
    const { series, blocks, step, name } = this.options;
    const x = (sample) => 300 - (now - sample.at) / 1000;
    const seen = samples.filter((sample) => now - sample.at <= SPAN);
    const all = seen.flatMap((sample) => series.map((one) => one.value(sample)));
    const highest = Math.max(0, ...all);
    const most = this.options.most || Math.max(1, highest) * 1.08;
    const y = (value) => (58 - 55 * Math.min(1, value / most)).toFixed(2);
    const line = (value) => {
      let path = "", before = null;
      for (const sample of seen) {
        const [at, height] = [x(sample).toFixed(2), y(value(sample))];
        // A gap is a time of which nothing is known.
        if (before === null || sample.at - before > 3500) path += `M${at},${height}`;
        else path += step ? `H${at}V${height}` : `L${at},${height}`;
        before = sample.at;
      }
      return path;
    };
    const filled = (value, base) => {
      let path = "";
      seen.forEach((sample, index) => {
        const share = value(sample);
        if (share <= 0) return;
        const next = seen[index + 1];
        const end = next && next.at - sample.at <= 3500 ? x(next) : x(sample) + 1;
        const top = base === undefined ? 0 : 60 - 60 * Math.min(1, share / base);
        path += `M${x(sample).toFixed(2)},60V${top.toFixed(2)}H${end.toFixed(2)}V60Z`;
      });
      return path;
    };
    if (blocks) {
      this.area.setAttribute("d", filled(series[0].value, most));
    } else {
      this.lines.forEach((path, index) => path.setAttribute("d", line(series[index].value)));
      const last = seen.length ? x(seen[seen.length - 1]).toFixed(2) : 300;
      const whole = line(series[0].value);
      const closed = whole.split("M").filter((part) => part).map((part) => {
        const begin = part.split(",")[0];
        const ends = part.match(/([\d.-]+),[\d.]+$/) || part.match(/H([\d.-]+)V[\d.]+$/);
        return `M${part}L${ends ? ends[1] : last},60L${begin},60Z`;
      });
      this.area.setAttribute("d", closed.join(""));
    }
    this.shade.setAttribute("d", blocks ? "" : filled((sample) => (sample.ready === false ? 1 : 0)));
    const at = seen.findLast((sample) => sample.at <= now - back + 500);
    this.cursor.setAttribute("x1", 300 - back / 1000);
    this.cursor.setAttribute("x2", 300 - back / 1000);
    this.cursor.style.visibility = back > 0 ? "visible" : "hidden";
    const told = series.map((one, index) => {
      const [text, more] = at ? [one.shown(one.value(at)), one.more ? one.more(at) : one.name] : ["–", one.name];
      say(this.values[index][0], text);
      say(this.values[index][1], more);
      return `${text} ${more}`.trim();
    });
    const shown = series[0].shown;
    const range = all.length ? `least ${shown(Math.min(...all))}, most ${shown(highest)}` : "nothing is known yet";
    say(this.least, blocks || !all.length ? "" : `${shown(Math.min(...all))} to ${shown(highest)}`);
    const when = back > 0 ? `${span(back / 1000)} ago` : "now";
    this.svg.setAttribute("aria-label", `${name}: ${when} ${told.join(", ")}; in the last 5 minutes ${this.options.told ? this.options.told(seen) : range}`);
  }
}

// Asks again and again, `every` so many milliseconds; where there is no answer, says since when, and asks less and less often.
function keepAsking(every, look) {
  const [lost, why, pause] = [byId("lost"), byId("why"), byId("pause")];
  let answered = null, wait = 0, timer = 0, asking = false, paused = false;
  async function ask() {
    if (asking) return;
    asking = true;
    clearTimeout(timer);
    try {
      await look();
      answered = Date.now();
      wait = 0;
      lost.hidden = true;
      document.documentElement.dataset.answers = "yes";
    } catch (error) {
      wait = Math.min(Math.max(1000, wait * 2), 10_000);
      const since = answered ? `since ${clock(answered)}` : "yet";
      const reason = error.name === "TimeoutError" ? "nothing came in time" : error.status ? error.message : "it cannot be reached";
      say(why, `No answer ${since}: ${reason}. What is shown is what was known then; it is asked again by itself.`);
      lost.hidden = false;
      document.documentElement.dataset.answers = "no";
    }
    asking = false;
    // Many pages that lost the same server do not come back all at once.
    if (!paused) timer = setTimeout(ask, wait ? wait * (0.75 + Math.random() / 2) : every);
  }
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Go on" : "Pause";
    if (paused) clearTimeout(timer);
    else ask();
  });
  byId("again").addEventListener("click", ask);
  addEventListener("online", ask);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && !paused) ask();
  });
  ask();
}
async function answer(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(5000) });
  if (!answer.ok) throw Object.assign(new Error(`${path} answers ${answer.status}`), { status: answer.status });
  return answer.json();
}
