const boxes = [...document.querySelectorAll("#sheet input")];
let saved = true;
const show = () => {
  const out = boxes.filter((box) => !box.checked).length;
  $("count").textContent = `${boxes.length - out} stay, ${out} do not${saved ? "" : " (not saved)"}`;
};
const save = () => {
  const left_out = boxes.filter((box) => !box.checked).map((box) => box.value);
  const text = JSON.stringify({ run: run.run, seen: run.ids, left_out }, null, 1);
  const link = make("a", { download: "choices.json" });
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  saved = true;
  show();
};
// crops in one row, as they stand on the page now
const columns = () => {
  const top = boxes[0].offsetParent.offsetTop;
  const other = boxes.findIndex((box) => box.offsetParent.offsetTop !== top);
  return other < 0 ? boxes.length : other;
};
$("sheet").addEventListener("change", () => { saved = false; show(); });
$("save").addEventListener("click", save);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const at = boxes.indexOf(document.activeElement);
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns() };
  if (event.key in steps) {
    const to = at < 0 ? 0 : Math.min(Math.max(at + steps[event.key], 0), boxes.length - 1);
    boxes[to].focus();
    event.preventDefault();
  } else if (event.key.toLowerCase() === "x" && at >= 0) {
    boxes[at].click();
  } else if (event.key.toLowerCase() === "s") {
    save();
  }
});
addEventListener("beforeunload", (event) => { if (!saved) event.preventDefault(); });
show();
