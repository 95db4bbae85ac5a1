// The review queue: one part at a time, one key per decision. The next images are already loaded; saving happens
// behind the reviewer's back (outbox.js). Leaves out what a label means: the server decides that.

import { Outbox } from "./outbox.js";
import { paint } from "./heat.js";

const PREFETCH = 4;
const BATCH = 24;
const REFILL_BELOW = 8;
const POLL_MS = 5000;

const root = document.querySelector("[data-review]");
const line = root.dataset.review;
const say = JSON.parse(root.dataset.words);
const part = (name) => root.querySelector(`[data-part="${name}"]`);
const queue = []; // tasks to come, the current one first
const trail = []; // decisions of this sitting, newest last: {task, entry}
const handled = new Set();
const images = new Map();
const flagged = new Set();
let heat = true;
let loading = false;
let queueState = "loading";

const outbox = new Outbox({
  author: root.dataset.author,
  storage: storageOf(window),
  request: (entry, signal) => fetch(address(entry), {
    method: "POST",
    credentials: "same-origin",
    headers: { "Content-Type": "application/json", Accept: "application/json" },
    body: JSON.stringify(entry.body ?? {}),
    signal,
  }),
  arrived,
  onChange: showSending,
});

function storageOf(owner) {
  try {
    return owner.localStorage;
  } catch {
    return null; // forbidden by the browser's settings
  }
}

const ROUTES = { label: "labels", skip: "skip", flag: "flag" };

function address(entry) {
  if (entry.kind === "undo") return `/api/v1/labels/${encodeURIComponent(entry.label)}/undo`;
  return `/api/v1/samples/${encodeURIComponent(entry.sid)}/${ROUTES[entry.kind]}`;
}

// Whether a decision whose answer was lost has arrived: the server's history of the sample says so.
async function arrived(entry, signal) {
  const response = await fetch(`/api/v1/samples/${encodeURIComponent(entry.sid)}`, { credentials: "same-origin", signal });
  if (!response.ok) throw new Error(`HTTP ${response.status}`);
  const { history } = await response.json();
  const label = history.findLast((row) => row.counts && row.author === entry.author && row.name === entry.name);
  return label?.id ?? null;
}

function fill(sentence, values) {
  return sentence.replace(/\{(\w+)\}/g, (_all, name) => values[name]);
}

const node = (tag, attributes = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...children);
  return made;
};

// --- the queue ---

async function refill() {
  if (loading) return;
  loading = true;
  try {
    const busy = new Set(outbox.waiting().map((entry) => entry.sid));
    const limit = Math.min(BATCH + handled.size, 200);
    const response = await fetch(`/api/v1/lines/${encodeURIComponent(line)}/queue?limit=${limit}`, { credentials: "same-origin" });
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    const body = await response.json();
    const known = new Set(queue.map((task) => task.sid));
    const fresh = (body.tasks ?? body).filter((task) => !known.has(task.sid) && !handled.has(task.sid) && !busy.has(task.sid));
    const wasEmpty = queue.length === 0;
    queue.push(...fresh);
    queueState = "ready";
    if (wasEmpty) show();
    else prefetch();
  } catch {
    queueState = queue.length > 0 ? "ready" : "failed";
    if (queue.length === 0) show();
  } finally {
    loading = false;
  }
}

function prefetch() {
  for (const task of queue.slice(0, PREFETCH + 1)) {
    if (images.has(task.sid)) continue;
    const image = node("img", { alt: say.image, decoding: "async", draggable: false });
    image.ready = false;
    image.addEventListener("load", () => { image.ready = true; if (queue[0]?.sid === task.sid) reveal(task, image); });
    image.addEventListener("error", () => { image.broken = true; if (queue[0]?.sid === task.sid) reveal(task, image); });
    image.src = task.image_url;
    images.set(task.sid, image);
  }
}

function advance() {
  const gone = queue.shift();
  handled.add(gone.sid);
  if (queue.length < REFILL_BELOW) refill();
  show();
}

// --- decisions ---

function choose(index) {
  const task = queue[0];
  const name = task?.classes[index];
  if (name !== undefined) label(nameOf(name));
}

function label(name) {
  const task = queue[0];
  const image = task && images.get(task.sid);
  if (!task) return;
  if (!image?.ready) {
    announce(image?.broken ? say.cannot_label_unseen : say.image_loading);
    return;
  }
  const entry = outbox.add({ kind: "label", line, sid: task.sid, name, body: { name, method: "single" } });
  trail.push({ task, entry });
  announce(fill(say.labelled, { name }));
  advance();
}

function accept() {
  const task = queue[0];
  if (task?.predicted) label(task.predicted);
  else if (task) announce(say.no_suggestion);
}

function skip() {
  const task = queue[0];
  if (!task) return;
  const entry = outbox.add({ kind: "skip", line, sid: task.sid, name: say.skipped_mark, body: {} });
  trail.push({ task, entry });
  announce(say.skipped);
  advance();
}

function undo() {
  const last = trail.pop();
  if (!last) {
    announce(say.nothing_to_undo);
    return;
  }
  if (last.entry.kind === "label" || outbox.waiting().some((entry) => entry.id === last.entry.id)) outbox.undo(last.entry);
  handled.delete(last.task.sid);
  queue.unshift(last.task);
  announce(fill(say.undone, { name: last.entry.name }));
  show();
}

function flag() {
  const task = queue[0];
  if (!task) return;
  if (flagged.has(task.sid)) {
    announce(say.flagged_already);
    return;
  }
  flagged.add(task.sid);
  outbox.add({ kind: "flag", line, sid: task.sid, name: say.flag_mark, body: { reason: "second look asked for in review" } });
  announce(say.flag_on);
  showFlag();
}

function toggleHeat() {
  heat = !heat;
  announce(heat ? say.heat_on : say.heat_off);
  showHeat();
}

// --- showing ---

function show() {
  const task = queue[0];
  part("work").hidden = !task;
  for (const state of ["loading", "failed", "ready"]) part(`empty-${state}`).hidden = Boolean(task) || queueState !== state;
  part("empty").hidden = Boolean(task);
  showTrail();
  if (!task) return;
  prefetch();
  for (const sid of images.keys()) {
    if (!queue.slice(0, PREFETCH + 2).some((other) => other.sid === sid)) images.delete(sid);
  }
  reveal(task, images.get(task.sid));
  part("says").textContent = task.predicted ?? say.could_not_judge;
  const sure = task.confidence ?? 0;
  part("sure-bar").setAttribute("width", String(100 * sure));
  part("sure").textContent = task.confidence === null || task.confidence === undefined ? "" : fill(say.sure, { percent: Math.round(100 * sure) });
  part("verdict").textContent = say.verdicts[task.verdict] ?? task.verdict;
  part("queue-kind").textContent = task.queue === "estimate" ? say.counts : say.trains;
  part("sid").textContent = task.serial ?? task.sid;
  part("accept").disabled = !task.predicted;
  showWords(task);
  showChoices(task);
  showFlag();
}

// A sentence of the language model, if there is one; in the page's language if there is that. It is foreign text: only
// ever set as text. Parts that measure accuracy are judged before it is read, so there it waits folded.
function showWords(task) {
  const all = task.descriptions ?? [];
  const one = all.find((other) => say.language.startsWith(other.language)) ?? all[0];
  part("words").hidden = !one;
  if (!one) return;
  part("words").open = task.queue !== "estimate";
  part("words-text").textContent = one.text;
  part("words-text").lang = one.language;
  part("words-from").textContent = fill(say.words_from, { release: one.release });
}

function nameOf(item) {
  return typeof item === "string" ? item : item.name;
}

function showChoices(task) {
  part("choices").replaceChildren(...task.classes.slice(0, 9).map((item, index) => {
    const name = nameOf(item);
    const kind = typeof item === "string" ? "" : item.defect ? say.defect : say.good;
    const button = node("button", { type: "button", className: "choice" },
      node("kbd", { textContent: String(index + 1) }), node("span", { textContent: name }), node("span", { className: "kind", textContent: kind }));
    button.classList.toggle("suggested", name === task.predicted);
    button.setAttribute("aria-keyshortcuts", String(index + 1));
    button.addEventListener("click", (event) => { unfocus(event); label(name); });
    return node("li", {}, button);
  }));
}

function reveal(task, image) {
  const frame = part("frame");
  part("image-broken").hidden = !image.broken;
  part("image-loading").hidden = Boolean(image.broken || image.ready);
  frame.hidden = !image.ready;
  if (image.ready) {
    frame.style.setProperty("--ratio", `${image.naturalWidth} / ${image.naturalHeight}`);
    frame.querySelector("img")?.remove();
    frame.prepend(image);
  }
  showHeat();
}

function showHeat() {
  const task = queue[0];
  const image = task && images.get(task.sid);
  const drawn = Boolean(heat && image?.ready && paint(part("map"), task.evidence, task.evidence_grid, image, task.evidence_roi));
  part("map").hidden = !drawn;
  part("scale").hidden = !drawn;
  part("heat").setAttribute("aria-pressed", String(heat));
  part("no-map").hidden = !task || Boolean(task.evidence && task.evidence_grid);
}

function showFlag() {
  const raised = flagged.has(queue[0]?.sid);
  part("flag").setAttribute("aria-pressed", String(raised));
  part("flagged").hidden = !raised;
}

function showSending() {
  const waiting = outbox.waiting().length;
  const foreign = outbox.foreign();
  const text = part("sending-text");
  const trouble = waiting > 0 && outbox.state !== "idle";
  text.className = trouble ? "chip warn" : "chip";
  text.dataset.mark = trouble ? "!" : waiting > 0 ? "…" : "✓";
  text.textContent = waiting === 0 ? say.all_saved
    : fill(outbox.state === "offline" ? say.offline : outbox.state === "signed-out" ? say.signed_out : say.saving, { n: waiting });
  part("sign-in").hidden = outbox.state !== "signed-out";
  part("volatile").hidden = outbox.durable;
  part("foreign").hidden = foreign.length === 0;
  part("foreign").textContent = foreign.length === 0 ? "" : fill(say.foreign, { n: foreign.length, name: foreign[0].author });
  showRefused();
  showTrail();
}

function showRefused() {
  const refused = outbox.refused();
  part("refusals").hidden = refused.length === 0;
  part("refused-list").replaceChildren(...refused.map((entry) => {
    const again = node("button", { type: "button", className: "button", textContent: say.try_again });
    const drop = node("button", { type: "button", className: "button", textContent: say.dismiss });
    again.addEventListener("click", () => outbox.again(entry.id));
    drop.addEventListener("click", () => outbox.dismiss(entry.id));
    return node("li", {}, node("span", { textContent: fill(say.refused, { name: entry.name ?? entry.kind, why: entry.refused }) }), again, drop);
  }));
}

function showTrail() {
  const waiting = new Set(outbox.waiting().map((entry) => entry.id));
  const refused = new Set(outbox.refused().map((entry) => entry.id));
  part("undo").disabled = trail.length === 0;
  part("done").textContent = String(trail.filter(({ entry }) => entry.kind === "label").length);
  part("trail").replaceChildren(...trail.slice(-8).reverse().map(({ entry }) => {
    const item = node("li", { textContent: entry.name });
    item.classList.toggle("pending", waiting.has(entry.id));
    item.classList.toggle("refused", refused.has(entry.id));
    if (waiting.has(entry.id)) item.append(node("span", { className: "out-of-sight", textContent: ` (${say.not_saved_yet})` }), " …");
    return item;
  }));
}

function announce(text) {
  part("said").textContent = text;
}

function unfocus(event) {
  // After a mouse click the keys must work on; who came by keyboard keeps the focus.
  if (event.detail > 0) event.currentTarget.blur();
}

// --- keys and buttons ---

const acts = { accept, undo, skip, flag, heat: toggleHeat, help: () => part("help-box").showModal() };
const KEYS = { " ": "accept", u: "undo", x: "skip", f: "flag", h: "heat", "?": "help" };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || event.isComposing) return;
  if (part("help-box").open || event.target.closest("input, textarea, select")) return;
  if ([" ", "Enter"].includes(event.key) && event.target.closest("button, a, summary")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (/^[1-9]$/.test(key)) choose(Number(key) - 1);
  else if (KEYS[key]) acts[KEYS[key]]();
  else return;
  event.preventDefault();
});

for (const [name, act] of Object.entries(acts)) {
  for (const button of root.querySelectorAll(`[data-act="${name}"]`)) {
    button.addEventListener("click", (event) => { unfocus(event); act(); });
  }
}
part("help-close").addEventListener("click", () => part("help-box").close());
part("retry").addEventListener("click", refill);
addEventListener("online", () => { outbox.flush(); refill(); });
addEventListener("storage", () => showSending()); // another tab sent or added something
addEventListener("beforeunload", (event) => {
  if (!outbox.durable && outbox.waiting().length > 0) event.preventDefault();
});
document.body.addEventListener("edgeloop:changed", () => { if (queue.length < REFILL_BELOW) refill(); });
setInterval(() => { if (queue.length === 0 && !document.hidden) refill(); }, POLL_MS);

showSending();
show();
outbox.flush();
refill();
