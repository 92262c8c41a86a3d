const words = (row) => [
  row.size && `${row.size} pixels`,
  "people" in row && (row.people === 1 ? "1 person" : `${row.people} people`),
  row.seconds !== undefined && `${row.seconds.toFixed(2)} s`,
].filter(Boolean);

/* The slider. */
const pairs = run.rows.filter((row) => row.pair);

function view(at) {
  const row = pairs[at];
  const { before, after, ratio, width, boxes } = row.pair;
  $("stem").value = at;
  $("frame").style.setProperty("--ratio", ratio);
  $("frame").style.setProperty("--width", width);
  $("left-image").src = before;
  $("left-image").alt = `${row.name} before`;
  $("right-image").src = after;
  $("right-image").alt = `${row.name} restored`;
  $("caption").textContent = [...words(row), ...(row.state === "restored" ? [] : [row.state]), ...(row.notes || [])].join(" · ");
  $("boxes-choice").hidden = !boxes.length;
  $("people").replaceChildren(...($("boxes").checked ? boxes : []).map(([left, top, w, h], i) => {
    const made = make("i", {}, make("b", { textContent: i + 1 }));
    Object.assign(made.style, { left: `${left}%`, top: `${top}%`, width: `${w}%`, height: `${h}%` });
    return made;
  }));
}

const step = (by) => view((Number($("stem").value) + by + pairs.length) % pairs.length);

if (pairs.length) {
  $("stem").replaceChildren(...pairs.map((row, at) => make("option", { value: at, textContent: row.name })));
  for (const id of ["stem", "boxes"]) $(id).addEventListener("change", () => view(Number($("stem").value)));
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("slider").addEventListener("input", () => $("frame").style.setProperty("--cut", `${$("slider").value}%`));
  view(Math.max(0, pairs.findIndex((row) => row.state === "restored")));
}

/* The list, in parts, so that ten thousand photos do not stop the page. */
const PART = 200;
const KINDS = [
  ["all", () => true],
  ["failed", (row) => row.error],
  ["with notes", (row) => row.notes],
  ["with people", (row) => row.people],
  ["nobody found", (row) => row.people === 0],
];
let listed = run.rows;
let shown = 0;

function look(row) {
  if (!row.thumbnail) return "";
  const image = make("img", { src: row.thumbnail, alt: "", loading: "lazy", decoding: "async" });
  const at = pairs.indexOf(row);
  if (at < 0) return make("span", { className: "look" }, image);
  const button = make("button", { className: "look" }, image);
  button.setAttribute("aria-label", `Compare ${row.name}`);
  button.addEventListener("click", () => {
    view(at);
    $("pictures").scrollIntoView({ block: "start" });
    $("slider").focus({ preventScroll: true });
  });
  return button;
}

function line(row) {
  const name = row.link ? make("a", { href: row.link, textContent: row.name }) : make("span", { textContent: row.name });
  const about = make("td", { className: "words" }, name);
  const note = (textContent, kind) => about.append(make("span", { className: `note ${kind}`, textContent }));
  if (row.state !== "restored" && !row.error) note(row.state, "");
  if (row.error) note(row.error, "bad");
  for (const text of row.notes || []) note(text, "warn");
  const fact = (textContent) => make("td", { className: "fact", textContent });
  const people = run.people ? [make("td", { textContent: "people" in row ? row.people : "–" })] : [];
  return make("tr", {}, make("td", {}, look(row)), about, ...people, fact(row.size || "–"), make("td", { textContent: row.seconds === undefined ? "–" : row.seconds.toFixed(2) }));
}

function more() {
  $("list").tBodies[0].append(...listed.slice(shown, shown + PART).map(line));
  shown = Math.min(listed.length, shown + PART);
  $("more").hidden = shown === listed.length;
  $("more").textContent = `Show more (${listed.length - shown} left)`;
}

function list(kind) {
  listed = run.rows.filter(KINDS.find(([name]) => name === kind)[1]);
  shown = 0;
  const heads = ["", "photo", ...(run.people ? ["people"] : []), "size", "seconds"];
  const cells = heads.map((textContent) =>
    textContent
      ? make("th", { textContent, scope: "col", className: { photo: "text", size: "fact" }[textContent] || "" })
      : make("td"));
  $("list").replaceChildren(make("thead", {}, make("tr", {}, ...cells)), make("tbody"));
  for (const button of $("filters").children) button.setAttribute("aria-pressed", button.value === kind);
  more();
}

for (const [kind, wanted] of KINDS) {
  const n = run.rows.filter(wanted).length;
  if (!n || (kind !== "all" && n === run.rows.length)) continue;
  const button = make("button", { value: kind, textContent: `${kind} (${n})` });
  button.addEventListener("click", () => list(kind));
  $("filters").append(button);
}
$("filters").hidden = $("filters").children.length < 2;
$("more").addEventListener("click", more);
list("all");
