// Keeps the page true: refreshes #live when the server says that data changed, and shows how old the data is.
// Leaves out everything a page does without a connection: the review queue keeps its own books.

const STALE_AFTER_MS = 15_000;
document.querySelector(".nav [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });
const stream = document.querySelector("[data-stream]");
const freshness = document.querySelector("[data-freshness]");
let lastWord = Date.now();
let wasStale = false;
let behind = false;
let clockOfChange = "";

function showFreshness() {
  if (!freshness || document.hidden) return;
  const stale = Date.now() - lastWord > STALE_AFTER_MS;
  if (stale === wasStale) return;
  wasStale = stale;
  freshness.classList.toggle("stale", stale);
  freshness.querySelector("[data-note]").textContent = stale ? freshness.dataset.stale : "";
  freshness.querySelector("[data-fresh-mark]").toggleAttribute("hidden", stale);
  freshness.querySelector("[data-stale-mark]").toggleAttribute("hidden", !stale);
}

// The clock moves only when the page shows what the server has: a refresh that failed is asked for again with the
// next tick, and until it succeeds the page counts as old.
function heard(clock) {
  if (behind) {
    document.body.dispatchEvent(new CustomEvent("edgeloop:changed"));
    return;
  }
  lastWord = Date.now();
  if (freshness && clock) freshness.querySelector("[data-clock]").textContent = clock;
  showFreshness();
}

if (stream) {
  stream.addEventListener("tick", (event) => heard(event.detail.data));
  stream.addEventListener("changed", (event) => {
    behind = document.getElementById("live") !== null;
    clockOfChange = event.detail.data;
    if (!behind) document.body.dispatchEvent(new CustomEvent("edgeloop:changed"));
    heard(event.detail.data);
  });
  document.addEventListener("htmx:after:swap", (event) => {
    if (event.detail?.ctx?.sourceElement?.id !== "live") return;
    behind = false;
    heard(clockOfChange);
  });
  // A tab that comes back to the front has heard nothing while it slept: give the stream a moment to reconnect.
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) lastWord = Math.max(lastWord, Date.now() - STALE_AFTER_MS / 2);
  });
  setInterval(showFreshness, 1000);
}

// A refused refresh (signed out, server restarting) must not replace the page people are reading: the clock in the
// corner says that it is no longer fresh.
document.addEventListener("htmx:before:swap", (event) => {
  const response = event.detail?.ctx?.response;
  if (response && (response.status >= 400 || response.raw?.redirected)) event.preventDefault();
});
