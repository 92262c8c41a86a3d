const drawn = (tag, values) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(values)) made.setAttribute(name, value);
  return made;
};
const digits = (metric, value) =>
  value === null ? "–" : value.toFixed(run.metrics[metric].digits).replace("-", "−");
const arrow = (metric) => (run.metrics[metric].better === "higher" ? "↑" : "↓");
const fill = (select, options, chosen) => {
  select.replaceChildren(...options.map(([value, words]) => make("option", { value, textContent: words })));
  if (chosen !== undefined) select.value = chosen;
};
const several = run.sets.length > 1;
const label = (set, stem) => (several ? `${run.sets[set]}: ` : "") + run.stems[stem];
const rowOf = new Map(run.rows.map((row) => [`${row[0]}/${row[2]}/${row[1]}`, row]));
const colour = (method) => `var(--c${method % 6})`;
const SHAPES = ["M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0", "M-3.6,-3.6h7.2v7.2h-7.2z", "M0,-4.8L4.6,3.6H-4.6z", "M0,-5L5,0L0,5L-5,0z"];
const shape = (method) => SHAPES[(method + Math.floor(method / 6)) % SHAPES.length];
// methods that have a picture or a number
const methods = run.methods.map((_, i) => i).filter((i) => run.rows.some((row) => row[1] === i));

/* The slider: any two forms of one photo. */
const scenes = Object.keys(run.scenes);
scenes.sort((a, b) => {
  const [[c, d], [e, f]] = [a.split("/").map(Number), b.split("/").map(Number)];
  return c - e || d - f;
});

function forms(scene) {
  const found = [];
  if (scene.lq) found.push(["lq", run.ends[0], scene.lq]);
  for (const i of methods) if (scene.out[i]) found.push([String(i), run.methods[i], scene.out[i]]);
  if (scene.hq) found.push(["hq", run.ends[1], scene.hq]);
  return found;
}

function view(key, left, right) {
  const scene = run.scenes[key];
  const found = forms(scene);
  const names = found.map(([value, words]) => [value, words]);
  const pick = (wanted, other) => (found.some(([value]) => value === wanted) ? wanted : other);
  $("stem").value = key;
  fill($("left"), names, pick(left, found[0][0]));
  const other = found.find(([value]) => value === String(run.main)) || found[found.length - 1];
  fill($("right"), names, pick(right, other[0]));
  $("frame").style.setProperty("--ratio", scene.size[0] / scene.size[1]);
  $("frame").style.setProperty("--width", scene.size[0]);
  for (const side of ["left", "right"]) {
    const [, words, picture] = found.find(([value]) => value === $(side).value);
    $(`${side}-image`).src = picture;
    $(`${side}-image`).alt = `${words} of ${run.stems[key.split("/")[1]]}`;
    $(`${side}-tag`).textContent = words;
  }
  const shown = methods.filter((i) => rowOf.has(`${key}/${i}`));
  const head = make("tr", {}, make("th", { textContent: "" }), ...run.metrics.map((m, i) => make("th", { textContent: `${m.name} ${arrow(i)}` })));
  $("numbers").replaceChildren(make("thead", {}, head), make("tbody", {}, ...shown.map((i) =>
    make("tr", {}, make("th", { textContent: run.methods[i] }), ...rowOf.get(`${key}/${i}`)[3].map((value, m) => make("td", { textContent: digits(m, value) }))))));
}

function open(set, stem, method) {
  const key = `${set}/${stem}`;
  if (!run.scenes[key]) return;
  view(key, "lq", String(method));
  $("viewer").scrollIntoView({ block: "start" });
  $("slider").focus({ preventScroll: true });
}

function step(by) {
  const at = scenes.indexOf($("stem").value);
  view(scenes[(at + by + scenes.length) % scenes.length], $("left").value, $("right").value);
}

if (scenes.length) {
  fill($("stem"), scenes.map((key) => [key, label(...key.split("/").map(Number))]));
  const again = () => view($("stem").value, $("left").value, $("right").value);
  for (const id of ["stem", "left", "right"]) $(id).addEventListener("change", again);
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("slider").addEventListener("input", () => $("frame").style.setProperty("--cut", `${$("slider").value}%`));
  view(scenes[0]);
}

/* Best and worst. */
const COUNT = 4;

function card(row, metric) {
  const [set, method, stem, values] = row;
  const scene = run.scenes[`${set}/${stem}`];
  const picture = scene && scene.out[method];
  const button = make("button", { title: label(set, stem) },
    picture ? make("img", { src: picture, alt: "", decoding: "async" }) : make("span", { className: "none", textContent: "not inside this page" }),
    make("b", { textContent: digits(metric, values[metric]) }), make("small", { textContent: label(set, stem) }));
  button.addEventListener("click", () => open(set, stem, method));
  return button;
}

function extremes() {
  const metric = Number($("extreme-metric").value);
  const method = Number($("extreme-method").value);
  const sign = run.metrics[metric].better === "higher" ? -1 : 1;
  const rows = run.rows.filter((row) => row[1] === method && row[3][metric] !== null);
  rows.sort((a, b) => sign * (a[3][metric] - b[3][metric]));
  const best = rows.slice(0, COUNT);
  const worst = rows.slice(Math.max(COUNT, rows.length - COUNT)).reverse();
  $("extremes").replaceChildren(
    make("h4", { textContent: "Best" }), ...best.map((row) => card(row, metric)),
    ...(worst.length ? [make("h4", { textContent: "Worst" })] : []), ...worst.map((row) => card(row, metric)));
}

if ($("extremes") && run.metrics.length && methods.length) {
  fill($("extreme-metric"), run.metrics.map((m, i) => [i, m.name]));
  fill($("extreme-method"), methods.map((i) => [i, run.methods[i]]), methods.includes(run.main) ? run.main : methods[0]);
  for (const id of ["extreme-metric", "extreme-method"]) $(id).addEventListener("change", extremes);
  extremes();
}

/* The scatter: a metric against another, or against the same metric of another method. */
const LIMIT = 4000;
const hidden = new Set();
const narrow = matchMedia("(max-width: 40rem)").matches;
const WIDTH = narrow ? 460 : 800, HEIGHT = narrow ? 430 : 480, LEFT = 70, RIGHT = 16, TOP = 14, BOTTOM = 50;

function ticks(low, high) {
  const raw = (high - low) / 5;
  const base = 10 ** Math.floor(Math.log10(raw));
  const size = base * [1, 2, 5, 10].find((m) => m * base >= raw);
  const found = [];
  for (let i = Math.ceil(low / size); i * size <= high; i += 1) found.push(i * size);
  const places = Math.max(0, -Math.floor(Math.log10(size)));
  return found.map((value) => [value, value.toFixed(places).replace("-", "−")]);
}

function span(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) { low = Math.min(low, value); high = Math.max(high, value); }
  const room = (high - low || Math.abs(high) || 1) * 0.05;
  return [low - room, high + room];
}

function chosenPoints() {
  const set = Number($("set").value);
  const up = Number($("up").value);
  const [way, index] = $("across").value.split(":");
  const points = [];
  for (const row of run.rows) {
    if (row[0] !== set || hidden.has(row[1])) continue;
    let x = null;
    if (way === "metric") x = row[3][Number(index)];
    else if (row[1] !== Number(index)) {
      const other = rowOf.get(`${row[0]}/${row[2]}/${index}`);
      x = other ? other[3][up] : null;
    }
    if (x !== null && row[3][up] !== null) points.push({ row, x, y: row[3][up] });
  }
  return { points, up, across: way === "metric" ? Number(index) : up, same: way !== "metric", other: Number(index) };
}

function plot() {
  const { points, up, across, same, other } = chosenPoints();
  const svg = $("points");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.replaceChildren();
  $("tip").hidden = true;
  $("plot-note").textContent = points.length ? "" : "No picture has both numbers.";
  if (!points.length) return;
  let [xs, ys] = [span(points.map((p) => p.x)), span(points.map((p) => p.y))];
  if (same) xs = ys = [Math.min(xs[0], ys[0]), Math.max(xs[1], ys[1])];
  const X = (v) => LEFT + ((v - xs[0]) / (xs[1] - xs[0])) * (WIDTH - LEFT - RIGHT);
  const Y = (v) => HEIGHT - BOTTOM - ((v - ys[0]) / (ys[1] - ys[0])) * (HEIGHT - TOP - BOTTOM);
  const text = (words, x, y, anchor, extra = {}) => {
    const made = drawn("text", { x, y, "text-anchor": anchor, ...extra });
    made.textContent = words;
    svg.append(made);
  };
  for (const [value, words] of ticks(...xs)) {
    svg.append(drawn("line", { class: "axis", x1: X(value), x2: X(value), y1: TOP, y2: HEIGHT - BOTTOM }));
    text(words, X(value), HEIGHT - BOTTOM + 18, "middle");
  }
  for (const [value, words] of ticks(...ys)) {
    svg.append(drawn("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: Y(value), y2: Y(value) }));
    text(words, LEFT - 8, Y(value) + 4, "end");
  }
  const name = (metric) => `${run.metrics[metric].name} ${arrow(metric)}`;
  text(same ? `${name(across)} of ${run.methods[other]}` : name(across), (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "middle");
  text(name(up), 0, 0, "middle", { transform: `translate(15 ${(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)` });
  if (same) svg.append(drawn("line", { class: "equal", x1: X(xs[0]), y1: Y(xs[0]), x2: X(xs[1]), y2: Y(xs[1]) }));
  const every = Math.ceil(points.length / LIMIT);
  if (every > 1) $("plot-note").textContent = `One point in ${every} is drawn.`;
  const some = points.filter((_, i) => i % every === 0);
  for (const { row, x, y } of some) {
    const point = drawn("path", {
      class: "point", d: shape(row[1]), transform: `translate(${X(x).toFixed(1)} ${Y(y).toFixed(1)})`,
      style: `fill:${colour(row[1])};stroke:${colour(row[1])}`, role: "button",
      "aria-label": `${run.methods[row[1]]}, ${run.stems[row[2]]}`,
    });
    if (some.length <= 300) point.setAttribute("tabindex", "0");
    point.told = { row, words: `${run.stems[row[2]]}\n${run.methods[row[1]]}: ${digits(across, x)}, ${digits(up, y)}` + (run.scenes[`${row[0]}/${row[2]}`] ? "" : "\n(picture not inside this page)") };
    svg.append(point);
  }
  if (same) $("plot-note").textContent += ` On the dotted line a method is as ${run.metrics[up].better === "higher" ? "high" : "low"} as ${run.methods[other]}; ${run.metrics[up].better === "higher" ? "above" : "below"} it, better.`;
}

function tip(event) {
  const told = event.target.told;
  $("tip").hidden = !told;
  if (!told) return;
  $("tip").textContent = told.words;
  const box = $("plot").getBoundingClientRect();
  const at = event.target.getBoundingClientRect();
  const x = Math.min(at.right - box.left + 8, box.width - $("tip").offsetWidth);
  $("tip").style.left = `${Math.max(0, x)}px`;
  $("tip").style.top = `${at.bottom - box.top + 6}px`;
}

if ($("points") && run.metrics.length && methods.length) {
  fill($("set"), run.sets.map((name, i) => [i, name]));
  $("set").parentElement.hidden = !several;
  fill($("up"), run.metrics.map((m, i) => [i, m.name]));
  const first = run.metrics.length > 1 ? "metric:1" : methods.length > 1 ? `method:${methods[0]}` : "metric:0";
  fill($("across"), [
    ...run.metrics.map((m, i) => [`metric:${i}`, m.name]),
    ...(methods.length > 1 ? methods.map((i) => [`method:${i}`, `the same of ${run.methods[i]}`]) : []),
  ], first);
  for (const id of ["set", "across", "up"]) $(id).addEventListener("change", plot);
  for (const i of methods) {
    const mark = drawn("svg", { viewBox: "-6 -6 12 12", "aria-hidden": "true" });
    mark.append(drawn("path", { d: shape(i), style: `fill:${colour(i)}` }));
    const button = make("button", {}, mark, run.methods[i]);
    button.setAttribute("aria-pressed", "true");
    button.addEventListener("click", () => {
      if (!hidden.delete(i)) hidden.add(i);
      button.setAttribute("aria-pressed", String(!hidden.has(i)));
      plot();
    });
    $("legend").append(button);
  }
  const svg = $("points");
  const go = (event) => { if (event.target.told) { const [set, method, stem] = event.target.told.row; open(set, stem, method); } };
  svg.addEventListener("pointerover", tip);
  svg.addEventListener("focusin", tip);
  svg.addEventListener("pointerleave", () => { $("tip").hidden = true; });
  svg.addEventListener("click", go);
  svg.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); go(event); } });
  plot();
}
