"use strict";
// The page of one rater. The server decides what is shown; an answer counts once the server has
// confirmed it. Sending the same answer again has no effect.

const $ = (id) => document.getElementById(id);
const KEY = "hbr-study-code";
const kind = document.body.dataset.kind;
let code = null; // the rater's code
let place = null; // the server's last reply
let shownAt = 0; // when the images became visible
let busy = true;

const pause = (ms) => new Promise((go) => setTimeout(go, ms));

async function ask(path, body) {
  for (;;) {
    let reply;
    try {
      reply = await fetch(path, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(body),
      });
      if (reply.status >= 500) throw new Error(String(reply.status));
    } catch {
      $("message").textContent = "No connection; not saved yet, retrying …";
      await pause(1500);
      continue;
    }
    const data = await reply.json();
    if (!reply.ok) throw new Error(typeof data.detail === "string" ? data.detail : "refused");
    $("message").textContent = "";
    return data;
  }
}

function only(section) {
  for (const id of ["start", "trial", "end"]) $(id).hidden = id !== section;
}

function pane(image, caption, className) {
  const figure = document.createElement("figure");
  figure.className = `pane ${className}`;
  const frame = document.createElement("div");
  frame.className = "frame";
  const img = document.createElement("img");
  img.src = `/images/${image}.png`;
  img.alt = caption || "photo to judge";
  img.draggable = false;
  frame.append(img);
  figure.append(frame);
  if (caption) {
    const words = document.createElement("figcaption");
    words.textContent = caption;
    figure.append(words);
  }
  return figure;
}

async function show(reply) {
  place = reply;
  $("bar").hidden = false;
  $("bar").max = reply.total;
  $("bar").value = reply.answered;
  $("count").textContent = `${reply.answered} of ${reply.total}`;
  $("mycode").textContent = code;
  $("who").hidden = false;
  if (!reply.trial) {
    only("end");
    busy = false;
    return;
  }
  only("trial");
  const { trial } = reply;
  const { lq, hq } = trial.references;
  const words = kind === "choice" ? ["Left", "Right"] : [lq || hq ? "This one" : ""];
  const panes = trial.images.map((id, i) => pane(id, words[i], "rated"));
  if (lq) panes[kind === "choice" ? "push" : "unshift"](pane(lq, "Before", "reference"));
  if (hq) panes.push(pane(hq, "Reference", "reference"));
  $("panes").classList.add("loading");
  $("panes").classList.toggle("with-references", Boolean(lq || hq));
  for (const figure of panes) {
    const img = figure.querySelector("img");
    img.width = trial.width;
    img.height = trial.height;
  }
  $("panes").replaceChildren(...panes);
  for (const button of $("answers").children) {
    button.setAttribute("aria-pressed", String(trial.answer === Number(button.dataset.value)));
    button.disabled = true;
  }
  $("back").disabled = trial.position === 0;
  try {
    await Promise.all([...$("panes").querySelectorAll("img")].map((img) => img.decode()));
  } catch {
    $("message").textContent = "A photo did not load; retrying …";
    await pause(1500);
    await go("/api/place", { code, position: trial.position });
    return;
  }
  $("panes").classList.remove("loading");
  shownAt = performance.now();
  await pause(200); // ignore the second half of a double click on the previous trial
  for (const button of $("answers").children) button.disabled = false;
  busy = false;
  for (const id of trial.ahead) new Image().src = `/images/${id}.png`;
}

async function go(path, body) {
  busy = true;
  try {
    await show(await ask(path, body));
  } catch (error) {
    $("message").textContent = error.message;
    busy = false;
  }
}

function answer(value) {
  if (busy || !place || !place.trial) return;
  const { id, position } = place.trial;
  const ms = Math.round(performance.now() - shownAt);
  for (const button of $("answers").children) button.disabled = true;
  go("/api/answer", { code, trial: id, position, value, ms });
}

function back() {
  if (busy || !place) return;
  const position = (place.trial ? place.trial.position : place.total) - 1;
  if (position >= 0) go("/api/place", { code, position });
}

function enter(wanted) {
  code = wanted;
  try { localStorage.setItem(KEY, code); } catch { /* private window: the code still works */ }
  go("/api/join", { code });
}

function newCode() {
  const letters = "abcdefghijklmnopqrstuvwxyz234567";
  const drawn = crypto.getRandomValues(new Uint8Array(12));
  return [...drawn].map((n) => letters[n % 32]).join("").replace(/(.{4})(?=.)/g, "$1-");
}

// Zoom: all photos on the page show the same spot, so that they can be compared.
function zoom(event, toggle) {
  const frame = event.target.closest(".frame");
  if (!frame) return;
  const near = toggle ? !frame.classList.contains("near") : frame.classList.contains("near");
  const box = frame.getBoundingClientRect();
  const x = (100 * (event.clientX - box.left)) / box.width;
  const y = (100 * (event.clientY - box.top)) / box.height;
  for (const other of document.querySelectorAll(".frame")) {
    other.classList.toggle("near", near);
    const img = other.firstChild;
    if (near) img.style.transformOrigin = `${x}% ${y}%`;
    img.style.transform = near ? "scale(2.5)" : "";
  }
}

$("panes").addEventListener("click", (event) => zoom(event, true));
$("panes").addEventListener("pointermove", (event) => zoom(event, false));
$("answers").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) answer(Number(button.dataset.value));
});
$("back").addEventListener("click", back);
$("again").addEventListener("click", back);
$("other").addEventListener("click", () => {
  try { localStorage.removeItem(KEY); } catch { /* nothing was stored */ }
  location.reload();
});
$("begin").addEventListener("click", () => { if (!code) enter(newCode()); });
$("resume").addEventListener("submit", (event) => {
  event.preventDefault();
  const wanted = $("code").value.trim().toLowerCase();
  if (/^[a-z2-7]{4}-[a-z2-7]{4}-[a-z2-7]{4}$/.test(wanted)) enter(wanted);
  else $("message").textContent = "A code looks like abcd-efgh-2345.";
});
document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input")) return;
  if (event.key === "Backspace") { event.preventDefault(); back(); }
  else if ($("trial").hidden) return;
  else if (kind === "scores" && /^[0-5]$/.test(event.key)) answer(Number(event.key));
  else if (kind === "choice" && event.key === "ArrowLeft") { event.preventDefault(); answer(0); }
  else if (kind === "choice" && event.key === "ArrowRight") { event.preventDefault(); answer(1); }
});

let known = null;
try { known = localStorage.getItem(KEY); } catch { /* private window */ }
if (known) enter(known);
else only("start");
