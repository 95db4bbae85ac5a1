// What a reviewer decided and the server has not confirmed yet. Every entry lies in the browser's storage under its
// own key from the moment of the key press until the server's answer, so a lost connection, a reload or a closed tab
// loses nothing. Entries go out in order, one at a time. An answer "no" is kept too, and shown, until a person
// dismisses it. Entries belong to their author: another person signing in at this desk does not send them.

const PREFIX = "edgeloop.review.";
const CONFIRMED = "edgeloop.confirmed."; // entry id -> label id, so that a label sent by any tab can be undone
const KEPT_CONFIRMED = 50;
const RETRY_MS = [1000, 2000, 4000, 8000, 15_000, 30_000];
const TIMEOUT_MS = 15_000;
const SETTLED = new Set(["undo already_undone", "skip not_open"]); // refusals that mean: it is so already

export class Outbox {
  #memory = new Map(); // stands in where the browser gives no storage; the page then warns before it is closed
  #sending = false;
  #timer = null;
  #tries = 0;
  #last = 0;

  constructor({ author, storage, request, arrived, onChange }) {
    this.author = author;
    this.request = request;
    this.arrived = arrived;
    this.onChange = onChange;
    this.storage = usable(storage) ? storage : null;
    this.state = "idle";
  }

  get durable() {
    return ![...this.#memory.keys()].some((key) => key.startsWith(PREFIX)) && this.storage !== null;
  }

  all() {
    return this.#read().filter((entry) => entry.author === this.author);
  }

  waiting() {
    return this.all().filter((entry) => !entry.refused && !entry.cancelled);
  }

  refused() {
    return this.all().filter((entry) => entry.refused);
  }

  foreign() {
    return this.#read().filter((entry) => entry.author !== this.author);
  }

  add(entry) {
    this.#last = Math.max(Date.now(), this.#last + 1); // two presses in one millisecond keep their order
    const id = `${String(this.#last).padStart(15, "0")}-${Math.random().toString(36).slice(2, 10)}`;
    const whole = { ...entry, id, author: this.author, at: this.#last };
    this.#write(whole);
    this.onChange();
    this.flush();
    return whole;
  }

  // Take a decision back. What has not left is only marked: it may be on its way in this tab or another, and then the
  // confirmation turns it into an undo.
  undo(entry) {
    const held = this.#find(entry.id);
    if (held?.refused) this.#remove(entry.id);
    else if (held) this.#write({ ...held, cancelled: true });
    else this.add({ kind: "undo", line: entry.line, sid: entry.sid, name: entry.name, label: this.#labelOf(entry.id) });
    this.onChange();
    this.flush();
  }

  again(id) {
    const entry = this.#find(id);
    if (!entry) return;
    delete entry.refused;
    this.#write(entry);
    this.onChange();
    this.flush();
  }

  dismiss(id) {
    this.#remove(id);
    this.onChange();
  }

  async flush() {
    if (this.#sending) return;
    clearTimeout(this.#timer);
    const exclusive = navigator.locks ? (work) => navigator.locks.request("edgeloop.outbox", work) : (work) => work();
    this.#sending = true;
    try {
      await exclusive(() => this.#drain()); // two tabs must not send the same label twice
    } finally {
      this.#sending = false;
      this.onChange();
    }
    // A press can land after the last look at the list and before the turn was given up.
    if (this.state === "idle" && this.#due().length > 0) this.flush();
  }

  #due() {
    return this.all().filter((entry) => !entry.refused);
  }

  async #drain() {
    for (let entry = this.#due()[0]; entry; entry = this.#due()[0]) {
      const answer = entry.cancelled && !entry.maybe ? this.#remove(entry.id) : await this.#post(entry);
      if (answer === "offline" || answer === "signed-out") {
        this.state = answer;
        this.#later();
        return;
      }
      this.#tries = 0;
      this.onChange();
    }
    this.state = "idle";
  }

  async #post(entry) {
    let response;
    try {
      // An answer was lost before: ask what the server knows, so that one decision never becomes two.
      const label = entry.maybe && entry.kind === "label" ? await this.arrived(entry, AbortSignal.timeout(TIMEOUT_MS)) : null;
      if (label !== null) return this.#settle(entry, { id: label });
      response = await this.request(entry, AbortSignal.timeout(TIMEOUT_MS));
    } catch {
      return this.#unsure(entry);
    }
    if (response.redirected || response.status === 401) return "signed-out";
    if (response.status >= 500 || response.status === 408 || response.status === 429) return this.#unsure(entry);
    if (response.ok) return this.#settle(entry, await response.json().catch(() => ({})));
    const { code, detail } = await problemOf(response);
    if (SETTLED.has(`${entry.kind} ${code}`)) return this.#settle(entry, {});
    return this.#find(entry.id)?.cancelled ? this.#remove(entry.id) : this.#write({ ...entry, refused: detail });
  }

  // No answer, or one from something in between: the decision may have arrived.
  #unsure(entry) {
    this.#write({ ...(this.#find(entry.id) ?? entry), maybe: true });
    return "offline";
  }

  #settle(entry, body) {
    const label = body.id ?? body.label_id ?? null;
    const takenBack = entry.kind === "label" && this.#find(entry.id)?.cancelled;
    if (takenBack) this.#write({ ...entry, kind: "undo", label, body: {}, cancelled: false, maybe: false });
    else this.#remove(entry.id);
    if (entry.kind === "label" && label !== null) this.#confirm(entry.id, label);
    return "done";
  }

  #confirm(id, label) {
    this.#keep(CONFIRMED + id, JSON.stringify(label));
    for (const key of this.#keys(CONFIRMED).sort().slice(0, -KEPT_CONFIRMED)) this.#drop(key);
  }

  #labelOf(id) {
    const text = this.#get(CONFIRMED + id);
    return text ? JSON.parse(text) : null;
  }

  #later() {
    const wait = RETRY_MS[Math.min(this.#tries++, RETRY_MS.length - 1)];
    this.#timer = setTimeout(() => this.flush(), wait * (0.8 + 0.4 * Math.random()));
  }

  #read() {
    const texts = this.#keys(PREFIX).map((key) => this.#get(key));
    return texts.filter(Boolean).map((text) => JSON.parse(text)).sort((a, b) => (a.id < b.id ? -1 : 1));
  }

  #find(id) {
    return this.#read().find((entry) => entry.id === id);
  }

  #write(entry) {
    this.#keep(PREFIX + entry.id, JSON.stringify(entry));
  }

  #remove(id) {
    this.#drop(PREFIX + id);
  }

  // --- storage, or memory where the browser gives none or has no room left ---

  #keys(prefix) {
    const stored = this.storage ? Object.keys(this.storage) : [];
    return [...new Set([...stored, ...this.#memory.keys()])].filter((key) => key.startsWith(prefix));
  }

  #get(key) {
    return this.#memory.get(key) ?? this.storage?.getItem(key) ?? null;
  }

  #keep(key, text) {
    try {
      if (!this.storage) throw new Error("no storage");
      this.storage.setItem(key, text);
      this.#memory.delete(key);
    } catch {
      this.#memory.set(key, text);
    }
  }

  #drop(key) {
    this.storage?.removeItem(key);
    this.#memory.delete(key);
  }
}

function usable(storage) {
  try {
    storage.setItem("edgeloop.probe", "1");
    storage.removeItem("edgeloop.probe");
    return true;
  } catch {
    return false;
  }
}

async function problemOf(response) {
  const body = await response.json().catch(() => ({}));
  const detail = typeof body.detail === "string" ? body.detail : `HTTP ${response.status}`;
  return { code: body.code ?? "", detail };
}
