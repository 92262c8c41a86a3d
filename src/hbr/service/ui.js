const $ = (id) => document.getElementById(id);
const photos = [];      // {name, file, versions: [{job, label, before, after}], item}
let chosen = null;      // the photo in the viewer
let models = [];
let active = 0;         // uploads and jobs that run
const MOST = 2;
const waiting = [];

function headers() {
  const token = sessionStorage.getItem("token");
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function call(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: { ...headers(), ...options.headers } });
  if (answer.status === 401) {
    $("login").hidden = false;
    throw new Error("a valid token is needed");
  }
  if (!answer.ok) {
    const body = await answer.json().catch(() => ({}));
    // an upload that is refused may be cut off before the reason has arrived
    const fallback = answer.status === 413 ? "the photo is too large for this service" : `the service answers ${answer.status}`;
    const error = new Error(typeof body.detail === "string" ? body.detail : fallback);
    error.status = answer.status;
    throw error;
  }
  return answer;
}

function say(text, bad = false) {
  $("message").textContent = text;
  $("message").className = bad ? "bad" : "quiet";
}

async function begin() {
  try {
    models = await (await call("v1/models")).json();
    allowPeople((await (await call("healthz")).json()).person_detector !== null);
  } catch (error) {
    say(`The service cannot be used: ${error.message}.`, true);
    return;
  }
  $("login").hidden = true;
  say("");
  $("model").replaceChildren(...models.map((m) => new Option(m.name, m.name)));
  showOptions();
}

function showOptions() {
  const model = models.find((m) => m.name === $("model").value);
  $("fidelity-field").hidden = !(model && model.two_ends);
  $("fidelity-value").value = Number($("fidelity").value).toFixed(2);
  showPeople(chosen);
}

function order(photo) {
  const model = $("model").value;
  const ends = models.find((m) => m.name === model)?.two_ends;
  const fields = { model, scale: $("scale").value, format: $("format").value, mode: "job" };
  if (ends) fields.fidelity = $("fidelity").value;
  if (!$("people").disabled) fields.people = $("people").value;
  const size = fields.scale === "1" ? "" : ` ×${fields.scale}`;
  const label = model + (ends ? ` ${Number(fields.fidelity).toFixed(2)}` : "") + size;
  const who = personFields(photo, fields.people, ends);
  return { fields: { ...fields, ...who.fields }, label: label + who.label };
}

// photos

function add(files) {
  const fresh = [...files].filter((f) => f.size > 0 && !f.name.startsWith("."));
  if (!fresh.length) {
    say("There was no photo in it.", true);
    return;
  }
  say("");
  for (const file of fresh) {
    const photo = { name: file.webkitRelativePath || file.name, file, versions: [], item: document.createElement("li") };
    photos.push(photo);
    $("photos").append(photo.item);
    restore(photo);
  }
  $("work").hidden = false;
  if (!chosen) choose(photos[photos.length - fresh.length]);
}

function restore(photo) {
  if (nobodyChosen(photo)) {
    say("Choose at least one person, or set People to “like the rest”.", true);
    return;
  }
  const version = { ...order(photo), state: "waiting", done: 0, total: 0, stop: new AbortController() };
  photo.versions.push(version);
  photo.shown = version;
  waiting.push([photo, version]);
  draw(photo);
  next();
}

function next() {
  while (active < MOST && waiting.length) {
    const [photo, version] = waiting.shift();
    if (version.state === "cancelled") continue;
    active += 1;
    run(photo, version)
      .catch((error) => {
        if (version.state !== "cancelled") {
          version.state = "failed";
          version.error = error.message;
        }
      })
      .finally(() => {
        active -= 1;
        draw(photo);
        next();
      });
  }
}

async function run(photo, version) {
  const signal = version.stop.signal;
  version.state = "sending";
  draw(photo);
  const body = new FormData();
  for (const [name, value] of Object.entries(version.fields)) {
    for (const each of [value].flat()) body.append(name, each);
  }
  body.append("photo", photo.file, photo.file.name);
  for (;;) {
    try {
      Object.assign(version, await (await call("v1/restore", { method: "POST", body, signal })).json());
      break;
    } catch (error) {
      if (error.status !== 503) throw error;
      await new Promise((resolve) => setTimeout(resolve, 2000));  // the queue is full
      signal.throwIfAborted();
    }
  }
  draw(photo);
  const answer = await call(`v1/jobs/${version.id}/events`, { signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n\n");
    rest = lines.pop();
    for (const line of lines) Object.assign(version, JSON.parse(line.slice(6)));
    draw(photo);
  }
  if (version.state === "done") {
    const name = photo.name.replace(/.*[/\\]/, "");
    [version.before, version.after] = await Promise.all(
      ["before", "after"].map(async (of) => {
        const shown = await call(`v1/jobs/${version.id}/preview?of=${of}`, { signal });
        return URL.createObjectURL(await shown.blob());
      }),
    );
    keepPeople(photo, version);
    say(`${name} is restored.${toldPeople(version)}`);
  }
}

function cancel(photo) {
  const version = photo.shown;
  version.state = "cancelled";
  version.stop.abort();
  if (version.id) call(`v1/jobs/${version.id}`, { method: "DELETE" }).catch(() => {});
  draw(photo);
}

function remove(photo) {
  for (const version of photo.versions) {
    version.state = "cancelled";
    version.stop.abort();
    if (version.id) call(`v1/jobs/${version.id}`, { method: "DELETE" }).catch(() => {});
    for (const url of [version.before, version.after]) if (url) URL.revokeObjectURL(url);
  }
  photos.splice(photos.indexOf(photo), 1);
  photo.item.remove();
  if (chosen === photo) choose(photos[0] || null);
  count();
}

const ENDED = ["done", "failed", "cancelled"];

function describe(version) {
  switch (version.state) {
    case "waiting": return "waiting";
    case "sending": return "sending";
    case "queued": return version.position > 1 ? `${version.position - 1} before it` : "next";
    case "running": return version.total ? `${version.done} of ${version.total} tiles` : "reading";
    case "done": return version.timings ? `done in ${version.timings.total.toFixed(1)} s` : "done";
    case "cancelled": return "cancelled";
    default: return version.error || "failed";
  }
}

function draw(photo) {
  const version = photo.shown;
  const pick = document.createElement("button");
  pick.type = "button";
  pick.className = "pick";
  pick.setAttribute("aria-current", String(photo === chosen));
  pick.onclick = () => choose(photo);
  const name = document.createElement("span");
  name.className = "name";
  name.textContent = photo.name;
  const state = document.createElement("span");
  state.className = version.state === "failed" ? "state bad" : "state";
  state.textContent = describe(version);
  pick.append(name, state);
  if (!ENDED.includes(version.state)) {
    const bar = document.createElement("progress");
    bar.setAttribute("aria-label", `progress of ${photo.name}`);
    if (version.total) {
      bar.max = version.total;
      bar.value = version.done;
    }
    pick.append(bar);
  }
  const end = document.createElement("button");
  end.type = "button";
  const running = !ENDED.includes(version.state);
  end.textContent = running ? "Cancel" : "×";
  end.setAttribute("aria-label", `${running ? "Cancel" : "Remove"} ${photo.name}`);
  end.onclick = () => (running ? cancel(photo) : remove(photo));
  const focused = photo.item.contains(document.activeElement)
    ? [...photo.item.children].indexOf(document.activeElement) : -1;
  photo.item.replaceChildren(pick, end);
  if (focused >= 0) photo.item.children[focused].focus();
  if (photo === chosen) view();
  count();
}

function count() {
  const done = photos.filter((p) => p.versions.some((v) => v.state === "done")).length;
  $("count").textContent = `${done} of ${photos.length} done`;
  $("all").disabled = done === 0;
  $("work").hidden = photos.length === 0;
  $("drop").classList.toggle("small", photos.length > 0);
}

// the viewer

function choose(photo) {
  const old = chosen;
  chosen = photo;
  if (old && photos.includes(old)) draw(old);
  if (photo) draw(photo);
}

function view() {
  const version = chosen.shown;
  $("versions").replaceChildren(
    ...chosen.versions.map((each) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = each.label;
      button.setAttribute("aria-pressed", String(each === version));
      button.onclick = () => { chosen.shown = each; draw(chosen); };
      return button;
    }),
  );
  const ready = version.state === "done" && version.after;
  $("download").disabled = !ready;
  const beside = $("beside").getAttribute("aria-pressed") === "true";
  $("stage").classList.toggle("full", $("zoom").getAttribute("aria-pressed") === "true");
  $("pair").hidden = !ready || beside;
  $("slide").hidden = !ready || beside;
  $("columns").hidden = !ready || !beside;
  $("facts").textContent = ready
    ? `${version.label}, ${version.provenance.tiles} tiles on ${version.provenance.device}, ${version.provenance.dtype}`
    : describe(version);
  showPeople(chosen);
  if (!ready) return;
  if ($("before").src !== version.before) $("before").src = version.before;
  if ($("after").src !== version.after) $("after").src = version.after;
  if (beside) {
    const shown = chosen.versions.filter((v) => v.after);
    const all = [["before", version.before], ...shown.map((v) => [v.label, v.after])];
    $("columns").replaceChildren(
      ...all.map(([label, url]) => {
        const figure = document.createElement("figure");
        const image = new Image();
        image.src = url;
        image.alt = label;
        const caption = document.createElement("figcaption");
        caption.textContent = label;
        figure.append(image, caption);
        return figure;
      }),
    );
  }
}

function cut(percent) {
  $("slider").value = percent;
  $("pair").style.setProperty("--cut", `${100 - percent}%`);
}

function toggle(button) {
  button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
  if (chosen) view();
}

async function save(path, name, options) {
  try {
    const url = URL.createObjectURL(await (await call(path, options)).blob());
    const link = document.createElement("a");
    link.href = url;
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
  } catch (error) {
    say(`It cannot be downloaded: ${error.message}.`, true);
  }
}

function downloadOne() {
  save(chosen.shown.result.slice(1), chosen.shown.file_name);
}

function downloadAll() {
  const jobs = photos.map((p) => (p.shown.state === "done" ? p.shown : p.versions.find((v) => v.state === "done")));
  const body = JSON.stringify({ jobs: jobs.filter(Boolean).map((v) => v.id) });
  save("v1/jobs/archive", "restored.zip", { method: "POST", body, headers: { "Content-Type": "application/json" } });
}

// dropping files and folders

async function entries(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!part.length) break;
    for (const each of part) found.push(...(await entries(each)));
  }
  return found;
}

document.addEventListener("dragover", (event) => { event.preventDefault(); $("drop").classList.add("over"); });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").classList.remove("over"); });
document.addEventListener("drop", async (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  const dropped = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  add((await Promise.all(dropped.map(entries))).flat());
});
for (const id of ["files", "folder"]) {
  $(id).addEventListener("change", () => { add($(id).files); $(id).value = ""; });
}

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value);
  begin();
});
for (const id of ["model", "fidelity", "people"]) $(id).addEventListener("input", showOptions);
$("slider").addEventListener("input", () => cut(Number($("slider").value)));
$("pair").addEventListener("pointerdown", (event) => { $("pair").setPointerCapture(event.pointerId); move(event); });
$("pair").addEventListener("pointermove", (event) => { if (event.buttons) move(event); });
function move(event) {
  const box = $("pair").getBoundingClientRect();
  const x = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  cut(Math.round(100 * (1 - x)));
}
$("zoom").addEventListener("click", () => toggle($("zoom")));
$("beside").addEventListener("click", () => toggle($("beside")));
$("again").addEventListener("click", () => { if (chosen) restore(chosen); });
$("download").addEventListener("click", downloadOne);
$("all").addEventListener("click", downloadAll);
cut(50);
begin();
