"use strict";

// people of a photo: who was found, who is restored, and how. photo.people is
// [{number, box, wanted, fidelity}], by number; box is [x, y, width, height] of the upright photo,
// and the fidelity is null for that of the options

const DONE = {
  crop: "restored separately, at the model's own size",
  tiles: "restored separately",
  "left as it is": "left unchanged: nothing to restore",
};

function allowPeople(detector) {
  $("people").disabled = !detector;
  if (!detector) $("people").value = "off";
  $("people-help").textContent = detector
    ? "Those who are found are listed below the photo."
    : "No person detector is installed: run hbr fetch people.";
}

function keepPeople(photo, version) {
  if (!version.people || photo.people) return;
  photo.size = version.photo_size;
  photo.people = version.people.map(({ number, box }) => ({ number, box, wanted: true, fidelity: null }));
}

function toldPeople(version) {
  if (!version.people) return "";
  const count = version.people.length;
  return ` ${count === 0 ? "Nobody was" : count === 1 ? "1 person was" : `${count} people were`} found.`;
}

function nobodyChosen(photo) {
  const people = photo.people || [];
  return $("people").value !== "off" && people.length > 0 && !people.some((p) => p.wanted);
}

// the boxes go back to the service, so that numbers stay whose they were
function personFields(photo, mode, ends) {
  if (!mode || mode === "off") return { fields: {}, label: "" };
  const label = mode === "only" ? ", only" : ",";
  if (!photo.people?.length) return { fields: {}, label: `${label} people` };
  const wanted = photo.people.filter((p) => p.wanted);
  const fields = { box: photo.people.map((p) => p.box.join(",")), person: wanted.map((p) => p.number).join(",") };
  const own = ends ? wanted.filter((p) => p.fidelity !== null) : [];
  if (own.length) fields.person_fidelity = own.map((p) => `${p.number}=${p.fidelity}`).join(",");
  const all = wanted.length === photo.people.length;
  return { fields, label: `${label} ${all ? "people" : `person ${fields.person}`}` };
}

function showPeople(photo) {
  const people = $("people").value === "off" ? null : photo?.people;
  $("found").hidden = !people;
  $("outline").hidden = true;
  if (!people) return;
  $("found-help").textContent = people.length
    ? "Choose who is restored, and how; then Restore again."
    : "Nobody was found.";
  const ends = !$("fidelity-field").hidden;
  const rows = $("persons");
  if (rows.photo !== photo) {
    rows.photo = photo;
    rows.replaceChildren(...people.map((person) => personRow(photo, person)));
  }
  people.forEach((person, i) => {
    const now = photo.shown.people?.find((p) => p.number === person.number);
    const fidelity = now && now.fidelity !== null ? `, fidelity ${now.fidelity.toFixed(2)}` : "";
    rows.children[i].querySelector(".did").textContent = now
      ? (DONE[now.done] || (photo.shown.fields.people === "only" ? "left unchanged" : "restored with the rest")) + fidelity
      : "";
    const range = rows.children[i].querySelector(".range");
    range.hidden = !ends;
    const value = person.fidelity ?? Number($("fidelity").value);
    range.querySelector("input").value = value;
    range.querySelector("output").value = `fidelity ${value.toFixed(2)}`;
  });
}

function personRow(photo, person) {
  const row = document.createElement("li");
  const name = `Person ${person.number}`;
  const cutOut = document.createElement("canvas");
  cutOut.setAttribute("aria-hidden", "true");
  drawCutOut(cutOut, photo, person);
  const box = document.createElement("input");
  box.type = "checkbox";
  box.id = `person-${person.number}`;
  box.checked = person.wanted;
  const label = document.createElement("label");
  label.htmlFor = box.id;
  label.textContent = name;
  const did = document.createElement("span");
  did.className = "did small quiet";
  did.id = `did-${person.number}`;
  box.setAttribute("aria-describedby", did.id);
  const range = document.createElement("div");
  range.className = "range";
  const slider = document.createElement("input");
  Object.assign(slider, { type: "range", min: 0, max: 1, step: 0.05, disabled: !person.wanted });
  slider.setAttribute("aria-label", `Fidelity of person ${person.number}: 0 sharp, 1 faithful`);
  const value = document.createElement("output");
  value.className = "small";
  box.addEventListener("change", () => { person.wanted = box.checked; slider.disabled = !box.checked; });
  slider.addEventListener("input", () => {
    person.fidelity = Number(slider.value);
    value.value = `fidelity ${person.fidelity.toFixed(2)}`;
  });
  range.append(slider, value);
  for (const event of ["pointerenter", "focusin"]) row.addEventListener(event, () => outline(photo, person));
  for (const event of ["pointerleave", "focusout"]) row.addEventListener(event, () => { $("outline").hidden = true; });
  row.append(cutOut, box, label, did, range);
  return row;
}

// where a person is, on the photo in the viewer
function outline(photo, person) {
  const [width, height] = photo.size;
  const [x, y, w, h] = person.box;
  const place = { left: x / width, top: y / height, width: w / width, height: h / height };
  for (const [name, part] of Object.entries(place)) $("outline").style[name] = `${100 * part}%`;
  $("outline").hidden = false;
}

// the person before, as large as fits into a square
async function drawCutOut(canvas, photo, person) {
  canvas.width = canvas.height = 112;
  const image = new Image();
  image.src = photo.versions.find((v) => v.before).before;
  try {
    await image.decode();
  } catch {
    return;  // the photo was removed meanwhile
  }
  const factor = image.naturalWidth / photo.size[0];
  const [x, y, w, h] = person.box.map((edge) => edge * factor);
  const fit = Math.min(112 / w, 112 / h);
  canvas.getContext("2d").drawImage(image, x, y, w, h, (112 - w * fit) / 2, (112 - h * fit) / 2, w * fit, h * fit);
}
