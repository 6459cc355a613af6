// Tables: sorted by a click on a header (or Enter), saved as CSV with every digit.

// The places of rows in the order of their values: numbers by size, text as people sort it, missing values last.
function ordered(places, values, descending) {
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b
    : String(a).localeCompare(String(b), undefined, { numeric: true }));
  const known = places.filter((place) => values[place] !== null);
  known.sort((a, b) => (descending ? -1 : 1) * compare(values[a], values[b]) || a - b);
  return [...known, ...places.filter((place) => values[place] === null)];
}

function sortable(heads, sort) {
  heads.forEach((head, place) => {
    const click = () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sort(place, descending);
    };
    const label = head.textContent.trim() ? null : `column ${place + 1}`;
    const name = element("button", { type: "button", class: "sort", "aria-label": label, onclick: click });
    name.append(...head.childNodes);
    head.append(name);
  });
}

for (const source of document.querySelectorAll("script[data-table]")) {
  const table = document.getElementById(source.dataset.table), columns = parsed(source);
  const body = table.tBodies[0], rows = [...body.rows], places = rows.map((_, place) => place);
  sortable([...table.tHead.rows[0].cells], (column, descending) => {
    const values = valuesOf(columns[column]);
    body.append(...ordered(places, values, descending).map((place) => rows[place]));
  });
  const caption = table.caption.textContent;
  const take = () => save(`${fileName(document.title, caption)}.csv`, csv(columns));
  const tools = element("div", { class: "tools" }, button("CSV", `Save the table “${caption}” as CSV`, take));
  table.closest(".sideways").after(tools);
}

// What is wider than its place has a shadow at the edge beyond which there is more.
for (const box of document.querySelectorAll(".sideways")) {
  const inner = box.firstElementChild;
  const look = () => {
    box.classList.toggle("more-left", inner.scrollLeft > 1);
    box.classList.toggle("more-right", inner.scrollLeft + inner.clientWidth < inner.scrollWidth - 1);
  };
  inner.addEventListener("scroll", look, { passive: true });
  const watch = new ResizeObserver(look);
  [inner, ...inner.children].forEach((one) => watch.observe(one));
}
