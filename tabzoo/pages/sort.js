"use strict";
// Makes the columns of tables of class "sortable" sort by a click. Without it the tables are read in their first order.
const collator = new Intl.Collator(undefined, { numeric: true });

function valueOf(row, column) {
  const cell = row.cells[column];
  const text = (cell.dataset.value ?? cell.textContent).trim();
  return text === "" || text === "-" ? null : text;
}

function compare(a, b) {
  const [x, y] = [Number(a), Number(b)];
  return Number.isNaN(x) || Number.isNaN(y) ? collator.compare(a, b) : x - y;
}

function sort(table, head) {
  const before = head.getAttribute("aria-sort");
  // At the first click texts begin with A, numbers with the largest.
  const rises = before ? before === "descending" : head.classList.contains("text");
  const sign = rises ? 1 : -1;
  const rows = Array.from(table.tBodies[0].rows, (row) => [valueOf(row, head.cellIndex), row]);
  // What has no value stays last, whatever the direction.
  rows.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b)));
  table.tBodies[0].append(...rows.map(([, row]) => row));
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", rises ? "ascending" : "descending");
}

for (const head of document.querySelectorAll("table.sortable thead th:not(.fixed)")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => sort(head.closest("table"), head));
}
