// Every completion, one condition at a time: chosen in the list, by its point in a figure, or by its row in a table.

const step = 10; // rows that are drawn at first

function number(value, digits = 3) {
  if (value === null) return "–";
  const text = typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(digits))) : value;
  return String(text).replace("-", "−");
}

function reader(place, data) {
  const columns = Object.fromEntries(data.columns.map((column) => [column.name, valuesOf(column)]));
  const { condition, prompt, sample, completion } = columns;
  const prompts = [...new Set(prompt)];
  const metric = data.metric, hits = metric ? columns[metric.column] : null;
  const places = new Map(data.conditions.map((one) => [one.number, []]));
  condition.forEach((one, row) => places.get(one).push(row));
  const shown = [
    { name: "#", class: "number", values: sample, written: (row) => String(sample[row]) },
    ...(prompts.length > 1 ? [{ name: "prompt", class: "prompt", values: prompt, written: (row) => element("span", { class: "clamp" }, prompt[row]) }] : []),
    { name: "completion", class: "text", values: completion, written: marked },
    ...data.numbers.map((name) => ({ name, class: "number", values: columns[name], written: (row) => value(name, row) })),
  ];
  let order = null, limit = step;

  function value(name, row) {
    const one = columns[name][row];
    return metric?.share && name === metric.column && one !== null ? (one ? "yes" : "no") : number(one);
  }

  function marked(row) {
    const text = completion[row], ends = data.marks?.[row] ?? [], pieces = element("span");
    let at = text.length - text.trimStart().length;
    for (let place = 0; place < ends.length; place += 2) {
      pieces.append(text.slice(at, ends[place]), element("mark", {}, text.slice(ends[place], ends[place + 1])));
      at = ends[place + 1];
    }
    pieces.append(text.slice(at));
    return pieces;
  }

  const list = (label, made) => {
    made.id = `choose-${label.toLowerCase()}`;
    return element("div", { class: "choice" }, element("label", { for: made.id }, label), made);
  };
  const conditions = element("select", { onchange: () => choose(Number(conditions.value)) });
  for (const group of new Set(data.conditions.map((one) => one.group))) {
    const mine = data.conditions.filter((one) => one.group === group);
    conditions.append(element("optgroup", { label: group }, ...mine.map((one) => element("option", { value: one.number }, one.name))));
  }
  const asked = element("select", { onchange: again }, element("option", { value: "" }, "all"),
    ...prompts.map((one, at) => element("option", { value: at }, one)));
  const which = element("select", { onchange: again }, element("option", { value: "" }, "all"),
    element("option", { value: "1" }, `with ${metric?.name}`), element("option", { value: "0" }, `without ${metric?.name}`));
  const heading = element("h3", { tabindex: "-1" }), told = element("p", { role: "status" });
  const question = element("p", { class: "asked" });
  const body = element("tbody", { role: "rowgroup" });
  const heads = shown.map((one) => element("th", { scope: "col", role: "columnheader", class: one.class }, one.name));
  const table = element("table", { role: "table", "aria-label": "Completions of the chosen condition" },
    element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...heads)), body);
  const more = button("", null, () => { limit += 50; draw(); });
  const whole = button(`CSV of all ${condition.length.toLocaleString("en")}`, null,
    () => save(`${fileName(document.title, "completions")}.csv`, csv(data.columns)));

  function again() {
    limit = step;
    draw();
  }

  function draw() {
    const mine = places.get(Number(conditions.value));
    let rows = asked.value === "" ? mine : mine.filter((row) => prompt[row] === prompts[asked.value]);
    rows = which.value === "" ? rows : rows.filter((row) => hits[row] === Number(which.value));
    if (order) rows = ordered(rows, shown[order.column].values, order.descending);
    body.replaceChildren(...rows.slice(0, limit).map((row) => element("tr", { role: "row" }, ...shown.map((one) =>
      element("td", { role: "cell", class: one.class, dir: one.class === "number" ? null : "auto", "data-name": one.name },
        one.written(row))))));
    more.hidden = rows.length <= limit;
    more.textContent = `Show more (${Math.min(limit, rows.length)} of ${rows.length} shown)`;
    const facts = [];
    for (const name of data.numbers) {
      const known = rows.map((row) => columns[name][row]).filter((one) => typeof one === "number");
      const sum = known.reduce((total, one) => total + one, 0);
      if (known.length && metric?.share && name === metric.column) {
        facts.push(`${name}: ${sum} of ${known.length} (${(100 * sum / known.length).toFixed(1)} %)`);
      } else if (known.length) facts.push(`${name}: mean ${number(sum / known.length)}`);
    }
    const one = prompts.length > 1 ? prompts[asked.value] : prompts[0];
    question.replaceChildren(...(asked.value === "" && prompts.length > 1 ? [] : ["Prompt: ", element("q", {}, one)]));
    told.textContent = [`${rows.length} completions`, ...facts].join("; ");
  }

  function choose(one, { there = false } = {}) {
    if (!places.has(one)) return;
    conditions.value = String(one);
    heading.textContent = data.conditions.find((other) => other.number === one).name;
    again();
    if (!there) return;
    place.classList.add("chosen");
    history.replaceState(null, "", `#condition=${one}`);
    place.scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
    heading.focus({ preventScroll: true });
  }

  sortable(heads, (column, descending) => { order = { column, descending }; again(); });
  place.append(
    element("div", { class: "choices" }, list("Condition", conditions),
      ...(prompts.length > 1 ? [list("Prompt", asked)] : []), ...(metric?.share ? [list("Show", which)] : []), whole),
    heading, question, told, table, more);
  conditions.addEventListener("change", () => {
    place.classList.add("chosen");
    history.replaceState(null, "", `#condition=${conditions.value}`);
  });
  for (const row of document.querySelectorAll("tr[data-condition]")) {
    const one = data.conditions.find((other) => other.number === Number(row.dataset.condition));
    if (!one) continue;
    const cell = [...row.cells].find((other) => other.textContent) ?? row.cells[0];
    const link = element("button", { type: "button", class: "link",
      "aria-label": `${cell.textContent}: completions of ${one.name}`, onclick: () => choose(one.number, { there: true }) });
    link.append(...cell.childNodes);
    cell.append(link);
  }
  document.addEventListener("condition", ({ detail }) => choose(detail, { there: true }));
  const wanted = /^#condition=(-?\d+)$/.exec(location.hash);
  choose(wanted && places.has(Number(wanted[1])) ? Number(wanted[1]) : data.first ?? data.conditions[0].number);
  if (wanted) place.classList.add("chosen");
}

const completions = document.querySelector("script[data-completions]");
if (completions) {
  const place = document.getElementById("every");
  if (window.DecompressionStream) {
    unpacked(completions.textContent).then((text) => { completions.remove(); reader(place, JSON.parse(text)); });
  } else {
    place.append(element("p", {}, "This browser is too old to show them; any of 2023 or later can."));
  }
}
