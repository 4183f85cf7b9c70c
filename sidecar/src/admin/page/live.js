// The sidecar's page: graphs from /history, tables from /statusz, settings from /config when they change.
const samples = [], events = new Map();
let mark = 0, started = 0, newest = 0, newestHere = 0, last = null, shownSettings = "", shownEvents = "";

const bytesRate = (value) => bytes(value) + "/s";
const graphs = [
  { name: "Throughput", series: [
    { name: "to targets", value: (s) => s.bytesToUpstream, shown: bytesRate },
    { name: "to clients", value: (s) => s.bytesToClient, shown: bytesRate }] },
  { name: "Connections open", series: [
    { name: "", value: (s) => s.connectionsOpen, shown: count, more: (s) => `${count(s.opened)} new a second` }] },
  { name: "Pushback, of submissions", most: 100, series: [
    { name: "", value: (s) => s.pushbackPercent, shown: (v) => `${count(v)} %`, more: (s) => `worst worker; ${count(s.pushedBack)} a second` }] },
  { name: "Readiness", blocks: true, className: "bad", most: 1, series: [
    { name: "", value: (s) => (s.ready ? 0 : 1), shown: (v) => (v ? "not ready" : "ready") }],
    told: (seen) => `not ready in ${count(seen.filter((s) => !s.ready).length)} of ${count(seen.length)} seconds` },
  { name: "Submissions", series: [
    { name: "", value: (s) => s.submissions, shown: count, more: () => "a second" }] },
  { name: "Backoff", series: [
    { name: "", value: (s) => s.backoffMicros, shown: micros, more: () => "of waits each second" }] },
  { name: "Batch limit", step: true, series: [
    { name: "", value: (s) => s.batchLimit, shown: count, more: () => "operations" }] },
  { name: "Accept gate", blocks: true, series: [
    { name: "", value: (s) => s.pausedWorkers, shown: (v) => (v ? "paused" : "open"), more: (s) => (s.pausedWorkers ? `in ${count(s.pausedWorkers)} workers` : "") }],
    told: (seen) => `paused in ${count(seen.filter((s) => s.pausedWorkers > 0).length)} of ${count(seen.length)} seconds` },
].map((options) => new Graph(byId("graphs"), options));

function drawAll() {
  // While nobody answers, time goes on, and the graphs with it.
  const now = newest + Math.max(0, performance.now() - newestHere);
  const back = -Number(byId("back").value) * 1000;
  say(byId("back-at"), back ? `${span(back / 1000)} ago, ${clock(now - back)}` : "now");
  const shown = document.documentElement.dataset.answers === "no" ? now : newest;
  graphs.forEach((graph) => graph.show(samples, shown, back));
  byId("shaded").hidden = !samples.some((sample) => !sample.ready);
}
byId("back").addEventListener("input", drawAll);

function take(history) {
  if (history.startedMillis !== started) {
    // Another process: its events are others; what was seen of the one before stays on the graphs.
    started = history.startedMillis;
    events.clear();
  }
  mark = history.mark;
  const columns = Object.entries(history.samples);
  const known = samples.length ? samples[samples.length - 1].at : 0;
  history.samples.atMillis.forEach((at, row) => {
    const sample = { at: started + at };
    for (const [name, values] of columns) sample[name] = values[row];
    if (sample.at > known) samples.push(sample);
  });
  newest = started + history.nowMillis;
  newestHere = performance.now();
  while (samples.length && newest - samples[0].at > SPAN) samples.shift();
  for (const event of history.events) events.set(event.number, event);
  for (const number of [...events.keys()].sort((a, b) => a - b).slice(0, -100)) events.delete(number);
}

const kinds = { readiness: "warn", stall: "bad", gate: "warn", settings: "good", backend: "soft", relay: "soft", controller: "soft", process: "soft" };
function showEvents() {
  const list = [...events.values()].sort((a, b) => b.untilMillis - a.untilMillis || b.number - a.number);
  const text = JSON.stringify(list);
  if (text === shownEvents) return;
  shownEvents = text;
  byId("events").replaceChildren(...list.map((event) => {
    const line = element("li"), when = element("time", clock(started + event.untilMillis));
    when.dateTime = new Date(started + event.untilMillis).toISOString();
    const often = event.count > 1 ? ` (${count(event.count)} times since ${clock(started + event.atMillis)})` : "";
    const kind = element("span");
    const good = event.kind === "readiness" && !event.sentence.startsWith("unready");
    const bad = event.kind === "readiness" && event.sentence.startsWith("unready") || event.sentence.includes("refused");
    kind.append(element("span", event.kind, `tag ${bad ? "bad" : good ? "good" : kinds[event.kind] || "soft"}`));
    line.append(when, kind, element("span", event.sentence + often));
    return line;
  }));
}

async function showSettings(now) {
  const runs = now.controller && now.controller.runs ? now.controller.runs.hash : "";
  const key = [started, now.settings.hash, now.settings.generation, runs].join(" ");
  if (key === shownSettings) return;
  const config = await answer("/config?format=json");
  shownSettings = key;
  const origin = (field) => config.sources[field] || "";
  const value = (it) => (typeof it === "object" && it !== null ? JSON.stringify(it) : String(it));
  byId("groups").replaceChildren(...Object.entries(config.settings).map(([group, fields]) => {
    const box = element("div"), table = element("table"), body = element("tbody");
    box.append(element("h3", group), table);
    table.setAttribute("aria-label", group);
    table.append(body);
    for (const [name, set] of Object.entries(fields)) {
      const from = origin(`${group}.${name}`);
      const row = element("tr", undefined, from === "default" ? "" : "set"), head = element("th", name);
      head.scope = "row";
      row.append(head, element("td", value(set)), element("td", from));
      body.append(row);
    }
    return box;
  }));
  const policy = config.policies && config.policies.relayPolicy ? `, policy ${config.policies.relayPolicy}` : "";
  say(byId("settings"), `${now.settings.hash}, generation ${now.settings.generation}, from ${config.origin}${policy}`);
}

function pushback(worker) {
  const since = worker.pushedBackForSeconds === undefined ? "" : ` for ${span(worker.pushedBackForSeconds)}`;
  return [`${worker.pushbackPercent} %${since}`, !worker.ready ? "bad" : worker.pushbackPercent > 0 ? "warn" : ""];
}
function show(now) {
  last = now;
  say(byId("state"), now.ready ? (now.reason === "ready" ? "ready" : now.reason) : `not ready: ${now.reason}`,
    "state " + (now.ready ? (now.reason === "ready" ? "good" : "warn") : "bad"));
  document.title = (now.ready ? "" : "not ready · ") + "Ringside";
  const flips = now.readinessFlips ? `, readiness changed ${now.readinessFlips === 1 ? "once" : count(now.readinessFlips) + " times"}` : "";
  const controller = now.controller ? (now.controller.connected ? ", controller connected" : ", controller not connected") : "";
  say(byId("about"), `${now.version} (${now.commit}), up ${span(now.uptimeSeconds)}${flips}${controller}`);

  rows("relays", now.relays.map((relay) => [
    relay.name, [relay.listen.join(", ") || "closed", relay.listening ? "" : "warn"], [relay.target === null ? "" :
      relay.target + (relay.addresses.length > 0 && relay.addresses[0] !== relay.target ? ` (${relay.addresses.join(", ")})` : ""), "wide"],
    count(relay.connectionsOpen), count(relay.connectionsOpened), bytes(relay.bytesToUpstream), bytes(relay.bytesToClient),
    [Object.entries(relay.connectionsClosed).filter(([reason, closed]) => closed > 0 && reason !== "finished")
      .map(([reason, closed]) => `${reason.replaceAll("_", " ")} ${count(closed)}`).join(", ") || "none", "wide"],
  ]), "No relay runs.");
  rows("workers", now.workers.map((worker) => [
    worker.index, worker.backend, count(worker.connections), pushback(worker), worker.rung.replaceAll("_", " "),
    worker.acceptPaused ? [`paused: ${worker.acceptPauseReason}`, "warn"] : "yes",
    count(worker.batchLimit), `${count(worker.operationsInFlight)} of ${count(worker.operationsBudget)}`, count(worker.stalls),
    `${bytes(worker.poolPinnedBytes)} of ${bytes(worker.poolLimitBytes)}`,
  ]));
  const backends = [...new Set(now.workers.map((worker) => `${worker.backend}: ${worker.reason}`))];
  say(byId("backend"), backends.join("; "));

  const notices = [
    ...(now.settings.lastError ? [`The last configuration was refused: ${now.settings.lastError.message}`] : []),
    ...now.settings.waitingForRestart,
    ...(now.controller && now.controller.refused ? [`What policies assign is refused: ${now.controller.refused.why}`] : []),
    ...(now.controller && !now.controller.connected && now.controller.lastError ? [`Controller: ${now.controller.lastError.message}`] : []),
    ...now.relays.flatMap((relay) => [
      ...(relay.error ? [`Relay ${relay.name}: ${relay.error}`] : []),
      ...(relay.lookupError ? [`Relay ${relay.name}: ${relay.target} cannot be looked up: ${relay.lookupError}`] : []),
    ]),
  ];
  const shown = byId("notices");
  if (shown.dataset.text !== notices.join("\n")) {
    shown.dataset.text = notices.join("\n");
    shown.replaceChildren(...notices.map((notice) => element("p", notice, "notice")));
  }
}
keepAsking(1000, async () => {
  const [now, history] = await Promise.all([answer("/statusz"), answer(`/history?after=${mark}`)]);
  document.documentElement.dataset.answers = "yes";
  take(history);
  show(now);
  drawAll();
  showEvents();
  await showSettings(now);
});
setInterval(() => {
  if (document.documentElement.dataset.answers === "no" && samples.length) drawAll();
}, 1000);
