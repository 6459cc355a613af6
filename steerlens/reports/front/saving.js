// What the page holds, unpacked, and what a reader takes away: CSV as pandas writes it, pictures of figures.

const parsed = (element) => JSON.parse(element.textContent);

async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

const valuesOf = (column) => column.values ?? column.at.map((place) => column.of[place]);

function field(value, type) {
  if (value === null) return "";
  if (type === "bool") return value ? "True" : "False";
  if (type === "float" && Number.isInteger(value) && Math.abs(value) < 1e16) return `${value}.0`;
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function csv(columns) {
  const values = columns.map(valuesOf);
  const lines = [columns.map((column) => field(column.name, "text")).join(",")];
  for (let row = 0; row < (values[0]?.length ?? 0); row++) {
    lines.push(columns.map((column, place) => field(values[place][row], column.type)).join(","));
  }
  return `${lines.join("\n")}\n`;
}

function save(name, content) {
  const link = element("a", { download: name, href: URL.createObjectURL(new Blob([content], { type: "text/csv" })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

// A file's name from words: letters and digits of any script, joined by hyphens.
function fileName(...words) {
  const name = (text) => text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-/, "").slice(0, 50).replace(/-$/, "");
  return words.map(name).filter(Boolean).join("-") || "steerlens";
}

// All text comes in as text: nothing here is ever read as HTML.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

const button = (text, label, onclick) => element("button", { type: "button", "aria-label": label, onclick }, text);
