// Tables sort by a column when its heading is chosen; cells without a value stay last.
"use strict";
(() => {
  const keyOf = (cell) => (cell.dataset.key !== undefined ? cell.dataset.key : cell.textContent.trim());

  function compare(a, b) {
    if (a === "" || b === "") return (a === "") - (b === "");
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
  }

  for (const table of document.querySelectorAll("table[data-sortable]")) {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const isNumber = heading.classList.contains("number");
        const now = heading.getAttribute("aria-sort");
        const order = now ? (now === "ascending" ? "descending" : "ascending") : isNumber ? "descending" : "ascending";
        headings.forEach((each) => each.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const body = table.tBodies[0];
        body.append(...[...body.rows].sort((one, other) => {
          const [a, b] = [keyOf(one.cells[column]), keyOf(other.cells[column])];
          return a === "" || b === "" ? compare(a, b) : sign * compare(a, b);
        }));
      });
    });
  }
})();
