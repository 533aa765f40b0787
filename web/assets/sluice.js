// What every page does by itself: copy buttons, clocks, and staying current.
// Nothing here is needed to read a page.

document.documentElement.classList.add("js");

const pulse = document.getElementById("pulse");
const toast = document.getElementById("toast");
let fading;

export function say(text) {
  toast.textContent = text;
  clearTimeout(fading);
  fading = setTimeout(() => (toast.textContent = ""), 4000);
}

// ---- copy ----

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    say("Copied. Compare it again where you paste it.");
  } catch {
    say("The browser did not allow copying. Select the text instead.");
  }
});

// ---- clocks: the server's time, so that a wrong clock here shows no wrong deadline ----

let ahead = Date.now() - Date.parse(document.body.dataset.now);

function span(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return "under 1 min";
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 48 * 3600) return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
  return `${Math.floor(s / 86400)} days`;
}

function tick() {
  const now = Date.now() - ahead;
  for (const time of document.querySelectorAll("time[data-span]")) {
    const at = Date.parse(time.dateTime);
    const text = time.dataset.span === "ago" ? `${span(now - at)} ago` : now < at ? `in ${span(at - now)}` : "now";
    if (time.textContent !== text) time.textContent = text;
  }
}
setInterval(tick, 10_000);

// ---- staying current: fetch this page again and lay the differences over it ----

// morph makes `old` like `fresh` and keeps every node that both have: focus, typed
// text, scroll positions and open details stay as the reader left them.
function morph(old, fresh) {
  if (old.id === "problem") return; // an error stays until the next try
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value && !mine(old, name)) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !mine(old, name)) old.removeAttribute(name);
  }
  if (old.nodeName === "TEXTAREA") return;
  let here = old.firstChild;
  for (const want of [...fresh.childNodes]) {
    const match = want.id ? [...old.children].find((e) => e.id === want.id) : here && same(here, want) ? here : null;
    if (!match) {
      old.insertBefore(want, here);
      continue;
    }
    if (match === here) here = here.nextSibling;
    else old.insertBefore(match, here);
    if (match.nodeType === Node.ELEMENT_NODE) morph(match, want);
    else if (match.nodeValue !== want.nodeValue) match.nodeValue = want.nodeValue;
  }
  while (here) {
    const gone = here;
    here = here.nextSibling;
    gone.remove();
  }
}

const same = (a, b) => a.nodeName === b.nodeName && !a.id && !b.id;

// What belongs to the reader or to a script, not to the server.
const mine = (e, name) =>
  (name === "open" && e.nodeName === "DETAILS") || ["value", "checked", "aria-busy"].includes(name);

async function refresh() {
  const answer = await fetch(location.href, { headers: { "Sluice-Live": "1" }, cache: "no-store" });
  if (answer.status === 401) return signedOut();
  if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  ahead = Date.now() - Date.parse(fresh.body.dataset.now);
  for (const want of fresh.querySelectorAll("[data-swap]")) {
    const old = document.getElementById(want.id);
    if (!old) continue;
    const before = old.dataset.state;
    morph(old, want);
    if (before !== old.dataset.state) say(`This withdrawal is now ${old.dataset.state}.`);
  }
  document.title = fresh.title;
  tick();
}

// One refresh at a time, and one more after it for whatever came meanwhile.
let busy = false, again = false;
export async function current() {
  if (busy) return void (again = true);
  busy = true;
  try {
    await refresh();
  } catch {
    status(false, "not current");
  }
  busy = false;
  if (again) {
    again = false;
    current();
  }
}

function status(on, text) {
  if (!pulse) return;
  pulse.toggleAttribute("data-on", on);
  pulse.textContent = text;
}

const follows = document.body.dataset.live;
let source;

function signedOut() {
  hush();
  document.removeEventListener("visibilitychange", watch);
  status(false, "signed out");
  say("You have been signed out. Reload the page to sign in again.");
}

function hush() {
  source?.close();
  source = null;
}

// A hidden page does not listen: browsers allow six connections to a site over
// plain HTTP, and a seventh tab would wait for ever.
function watch() {
  if (document.hidden) return hush();
  if (source) return;
  source = new EventSource("/live");
  // Also after a pause: something may have happened while nobody listened.
  source.addEventListener("ready", () => {
    status(true, "live");
    current();
  });
  source.addEventListener("changed", ({ data }) => {
    const { ids, more } = JSON.parse(data);
    if (more || follows === "*" || ids.includes(follows)) current();
  });
  source.addEventListener("signedout", signedOut);
  source.addEventListener("error", ({ target }) => status(false, target.readyState === EventSource.CLOSED ? "not live" : "reconnecting"));
}

if (follows) {
  watch();
  document.addEventListener("visibilitychange", watch);
  // Some of what is shown changes without an entry in the record, such as confirmations.
  setInterval(() => document.hidden || current(), 60_000);
}

// ---- the form of a new withdrawal ----

const form = document.querySelector("[data-request]");
if (form) {
  form.addEventListener("change", ({ target }) => {
    if (target.name !== "destination") return;
    document.getElementById("unit").textContent = target.dataset.unit;
    document.getElementById("amount-rule").textContent = target.dataset.rule ?? "";
  });
  form.querySelector("[data-find]")?.addEventListener("input", ({ target }) => {
    const words = target.value.toLowerCase().split(/\s+/);
    for (const pick of form.querySelectorAll("[data-text]")) {
      const text = pick.dataset.text.toLowerCase();
      pick.hidden = !words.every((word) => text.includes(word));
    }
  });
  form.addEventListener("submit", () => form.querySelector("button:not([type])").setAttribute("aria-busy", "true"));
  document.querySelector("[aria-invalid=true]")?.focus();
}
