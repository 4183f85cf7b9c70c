// The controller's page: policies and pods from /statusz every two seconds. Graphs go as far back as this page was open.
const samples = [];
const classes = { ready: "good", away: "bad", held: "warn", "not ready": "warn", unknown: "soft", ending: "soft" };
let last = null;

const graphs = [
  { name: "Pods whose relay takes connections", series: [
    { name: "", value: (s) => s.readyPods, shown: count, more: (s) => `of ${count(s.pods)}` }] },
  { name: "Pods away for pressure, and pods held", series: [
    { name: "away", value: (s) => s.away, shown: count }, { name: "held", value: (s) => s.held, shown: count }] },
  { name: "Connections of all relays", series: [{ name: "", value: (s) => s.connections, shown: count }] },
  { name: "Pushback of the worst pod", most: 100, series: [{ name: "", value: (s) => s.pushback, shown: (v) => `${count(v)} %` }] },
].map((options) => new Graph(byId("graphs"), options));

const full = (namespace, name) => (namespace === "" ? name : `${namespace}/${name}`);
function conditions(policy) {
  const cell = element("span", undefined, "tags");
  for (const { kind, isTrue, reason } of policy.conditions) {
    const good = isTrue === (kind !== "Degraded");
    const text = kind === "Degraded" ? (isTrue ? `Degraded: ${reason}` : "not Degraded") : isTrue ? kind : `not ${kind}: ${reason}`;
    cell.append(element("span", text, `tag ${good ? "good" : kind === "Accepted" ? "bad" : "warn"}`));
  }
  return cell;
}
function policy(policy) {
  const backends = Object.entries(policy.backends).map(([backend, pods]) => `${backend || "none"} ${count(pods)}`);
  const told = policy.conditions.filter(({ kind, isTrue }) => isTrue === (kind === "Degraded")).map(({ message }) => message);
  return [
    policy.namespace === "" ? `${policy.name} (cluster)` : full(policy.namespace, policy.name), conditions(policy),
    [told.join(" ") || "nothing", "wide"],
    `${count(policy.ready)} of ${count(policy.matched)}`, `${count(policy.programmed)} of ${count(policy.matched)}`,
    [`${count(policy.away)} of ${count(policy.mayBeUnready)}`, policy.away ? "warn" : ""],
    [count(policy.held), policy.held ? "warn" : ""], [count(policy.unknown), policy.unknown ? "warn" : ""],
    count(policy.connections), backends.join(", ") || "none",
  ];
}
function pod(pod) {
  const why = [pod.refused ? `settings refused: ${pod.refused}` : "", pod.state === "ready" ? "" : pod.reason,
    pod.backend === "epoll" ? pod.backendReason : ""];
  return [
    full(pod.namespace, pod.name), pod.policy || "none", [pod.state, classes[pod.state]],
    [`${pod.pushbackPercent} %`, pod.pushbackPercent ? "warn" : ""], count(pod.connections), pod.backend, pod.version,
    [pod.refused ? "refused" : pod.runs, pod.refused ? "bad" : "soft"], [why.filter((part) => part).join("; "), "wide"],
  ];
}
function showPods() {
  if (!last) return;
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter((word) => word);
  const shown = last.pods.filter((pod) => {
    const text = `${pod.namespace}/${pod.name} ${pod.policy} ${pod.state} ${pod.backend} ${pod.version} ${pod.reason}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
  const listed = last.pods.length < last.podsInAll ? `the ${count(last.pods.length)} worst off of ${count(last.podsInAll)}` : count(last.podsInAll);
  say(byId("count"), words.length ? `${count(shown.length)} shown, of ${listed}` : listed);
  rows("pods", shown.map(pod), words.length ? "No pod has all of these words." : "No pod has a relay yet.");
}
function show(now) {
  last = now;
  const bad = now.policies.filter((policy) => policy.conditions.some(({ kind, isTrue }) => isTrue === (kind === "Degraded"))).length;
  let told = bad ? `${count(bad)} of ${count(now.policies.length)} policies need a look` : "nothing is wrong with any policy";
  if (!now.leads) told = `this replica does not lead; the leader is ${now.leader || "nobody yet"}: what sidecars say is known there`;
  say(byId("state"), told, "state " + (now.leads ? (bad ? "warn" : "good") : "soft"));
  document.title = (now.leads && bad ? `${bad} to look at · ` : "") + "Ringside controller";
  say(byId("about"), `${now.version}, ${count(now.podsInAll)} pods, ${count(now.callsOpen)} calls open`);
  const totals = now.totals;
  samples.push({ at: Date.now(), pods: now.podsInAll, readyPods: totals.ready, away: totals.away, held: totals.held,
    connections: totals.connections, pushback: totals.pushbackPercent });
  const newest = samples[samples.length - 1].at;
  while (newest - samples[0].at > SPAN) samples.shift();
  graphs.forEach((graph) => graph.show(samples, newest, 0));
  rows("policies", now.policies.map(policy), "There is no policy: all pods run the defaults.");
  showPods();
}
byId("filter").addEventListener("input", showPods);
keepAsking(2000, async () => show(await answer("/statusz")));
