// Sorting of the tables by a click on a heading, or the enter key.
document.querySelectorAll(".sortable th").forEach((head) => {
  head.tabIndex = 0;
  head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(head); });
  head.addEventListener("click", () => sort(head));
});

function sort(head) {
  const table = head.closest("table"), column = head.cellIndex, up = head.getAttribute("aria-sort") === "descending";
  table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const value = (row) => row.cells[column].textContent;
  const order = (a, b) => value(a).localeCompare(value(b), undefined, { numeric: true });
  const rows = [...table.tBodies[0].rows].sort((a, b) => (up ? order(a, b) : order(b, a)));
  table.tBodies[0].append(...rows);
}
