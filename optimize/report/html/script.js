"use strict";
// Sorting, filtering and hovering: the page says everything without this script, too.
const number = (text) => Number.parseFloat(text.replace(/[,−]/g, (sign) => (sign === "−" ? "-" : "")));

function compare(one, other) {
  const [left, right] = [number(one), number(other)];
  if (Number.isNaN(left) || Number.isNaN(right)) return one.localeCompare(other);
  return left - right;
}

function sort(table, column, button) {
  const down = button.parentElement.getAttribute("aria-sort") === "ascending";
  for (const head of table.tHead.rows[0].cells) head.removeAttribute("aria-sort");
  button.parentElement.setAttribute("aria-sort", down ? "descending" : "ascending");
  const rows = [...table.tBodies[0].rows];
  const text = (row) => row.cells[column].textContent.trim();
  rows.sort((one, other) => compare(text(one), text(other)) * (down ? -1 : 1));
  table.tBodies[0].append(...rows);
}

for (const table of document.querySelectorAll("table.sortable")) {
  if (table.tBodies[0].rows.length < 3) continue;
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, column, button));
    head.append(button);
  });
}

const form = document.querySelector("form.filter");
if (form) {
  const items = [...document.querySelectorAll(".flips > li")];
  const more = document.querySelector("button.more");
  const filter = (most) => {
    const kind = form.elements.kind.value;
    const words = form.elements.words.value.trim().toLowerCase();
    let found = 0;
    for (const item of items) {
      const fits = (!kind || item.dataset.kind === kind) && item.textContent.toLowerCase().includes(words);
      found += fits ? 1 : 0;
      item.hidden = !fits || found > most;
    }
    form.querySelector("output").textContent = `${Math.min(found, most)} of ${found} shown`;
    more.hidden = found <= most;
    more.textContent = `Show all ${found}`;
  };
  const few = () => filter(20);
  form.hidden = false;
  form.addEventListener("input", few);
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => {
    const seen = items.filter((item) => !item.hidden).length;
    filter(Infinity);
    const next = items.filter((item) => !item.hidden)[seen];
    next.tabIndex = -1;
    next.focus({ preventScroll: true });
  });
  addEventListener("beforeprint", () => filter(Infinity));
  few();
}

const tip = document.getElementById("tip");
document.addEventListener("pointerover", (event) => {
  const mark = event.target.closest(".chart [aria-label]:not(svg)");
  tip.hidden = !mark || mark.closest("[aria-hidden=true]") !== null;
  if (tip.hidden) return;
  tip.textContent = mark.getAttribute("aria-label");
  const box = tip.getBoundingClientRect();
  const left = Math.min(event.clientX + 12, document.documentElement.clientWidth - box.width - 8);
  const top = event.clientY + box.height + 20 > window.innerHeight ? event.clientY - box.height - 10 : event.clientY + 16;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${top}px`;
});
document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
addEventListener("beforeprint", () => {
  for (const each of document.querySelectorAll("details")) each.open = true;
});
