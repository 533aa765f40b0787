// Sign-in, enrolment and votes. Each asks the server for WebAuthn options, lets
// the passkey answer, and hands the answer back. The demo people of `sluice dev`
// answer by their software passkeys, on the server, and nothing else differs.

import { current, say } from "./sluice.js";

async function post(path, body) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "application/json" },
    body: JSON.stringify(body),
  });
  const said = await answer.json().catch(() => ({ detail: `the server answered ${answer.status} without words` }));
  if (!answer.ok) throw Object.assign(new Error(said.detail), { fix: said.fix });
  return said;
}

async function assertion(publicKey, demo) {
  if (demo) return post("/dev/passkey/get", { person: demo, publicKey });
  const options = PublicKeyCredential.parseRequestOptionsFromJSON(publicKey);
  return (await navigator.credentials.get({ publicKey: options })).toJSON();
}

// run does one ceremony behind a button: one at a time, and whatever goes wrong is
// said on the page with what to do about it.
async function run(button, ceremony) {
  if (button.getAttribute("aria-busy") === "true") return;
  const problem = document.getElementById("problem");
  problem.hidden = true;
  button.setAttribute("aria-busy", "true");
  try {
    await ceremony();
  } catch (error) {
    const [what, fix] = explain(error);
    const title = document.createElement("b"), text = document.createElement("p");
    title.textContent = what;
    text.textContent = fix;
    problem.replaceChildren(title, text);
    problem.hidden = false;
  }
  button.removeAttribute("aria-busy");
}

function explain(error) {
  const sentence = (s) => s && s[0].toUpperCase() + s.slice(1) + (/[.!?]$/.test(s) ? "" : ".");
  if (error.name === "NotAllowedError") return ["The passkey did not answer.", "It was cancelled, took too long, or this device has no passkey for Sluice. Try again, or use another device."];
  if (error.name === "InvalidStateError") return ["This device already has a passkey of yours.", "Sign in with it, or use another device."];
  if (error instanceof ReferenceError || error instanceof TypeError) return ["Nothing was done.", "The server cannot be reached, or this browser is too old for passkeys. Check the connection and try again."];
  return [sentence(error.message), sentence(error.fix) ?? ""];
}

for (const button of document.querySelectorAll("[data-signin]")) {
  button.addEventListener("click", () => run(button, async () => {
    const { publicKey } = await post("/signin/options", {});
    const credential = await assertion(publicKey, button.dataset.demo);
    const { redirect } = await post("/signin/finish", { credential, next: button.dataset.next });
    location.assign(redirect);
  }));
}

document.querySelector("[data-enrol]")?.addEventListener("submit", (event) => {
  event.preventDefault();
  const form = event.target, path = `/enrol/${form.dataset.enrol}`;
  run(form.querySelector("button"), async () => {
    const { publicKey } = await post(`${path}/options`, {});
    const options = PublicKeyCredential.parseCreationOptionsFromJSON(publicKey);
    const credential = (await navigator.credentials.create({ publicKey: options })).toJSON();
    const { redirect } = await post(`${path}/finish`, { credential, label: form.elements.label.value.trim() });
    location.assign(redirect);
  });
});

// The page swaps its pieces, so the listener sits above them.
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-decision]");
  if (!button) return;
  const { vote: id, digest, demo } = button.closest("[data-vote]").dataset;
  const decision = button.dataset.decision;
  const field = document.getElementById("vote-reason");
  if (decision === "reject" && !field.reportValidity()) return;
  run(button, async () => {
    const { nonce, publicKey } = await post(`/withdrawals/${id}/vote/options`, { decision, digest });
    const credential = await assertion(publicKey, demo);
    const reason = decision === "reject" ? field.value : "";
    const { missing, state } = await post(`/withdrawals/${id}/vote/finish`, { decision, nonce, reason, credential });
    say(state === "pending" || state === "absent" ? `Your vote is in. ${missing} more needed.` : `Your vote is in. The withdrawal is now ${state}.`);
    current();
  });
});
