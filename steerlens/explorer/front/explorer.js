// The explorer's front end: an anywidget module. Jupyter runs it, and the page of `steerlens explore` (page.js).
// What is shown comes from the model by name; text enters the page as text, never as markup.

const PARTS = ["shift", "effect", "effect"]; // which part of "stale" fades which figure

// One copy of plotly.js for the page, however many widgets ask for it.
function library(model) {
  self.steerlensPlotly ??= new Promise((resolve, reject) => {
    const address = model.get("plotly_url");
    const url = address || URL.createObjectURL(new Blob([model.get("plotly")], { type: "text/javascript" }));
    const script = document.createElement("script");
    script.onload = () => {
      if (!address) URL.revokeObjectURL(url);
      resolve(self.Plotly ?? self.moduleName);
    };
    script.onerror = () => reject(new Error("plotly.js did not load"));
    script.src = url;
    document.head.append(script);
  });
  return self.steerlensPlotly;
}

const FOCUSED = ["input", "select", "button", "summary"];
let made = 0; // elements that need an id, over all explorers of the page

function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  // JupyterLab would take the arrow keys from the sliders: it looks for this on what has the focus.
  if (FOCUSED.includes(tag) || "tabindex" in attributes) element.dataset.lmSuppressShortcuts = "true";
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
    else if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

// ---- the controls ---------------------------------------------------------------------------------------------------

// What every control has: its element, `get` and `set` of its value. `moved` is called when a hand has changed it.
function field(label, input, get, set, extra = []) {
  input.id ||= `steerlens-${++made}`;
  const chips = h("span", { class: "sl-chips", "aria-hidden": "true" });
  return { element: h("div", { class: "sl-field" }, h("label", { for: input.id }, label), input, ...extra, chips), input, get, set, chips };
}

// Enter takes what was typed, also where the page around (JupyterLab) keeps the browser from saying so.
const taken = (moved) => ({ change: moved, keydown: (event) => { if (event.key === "Enter") moved(); } });

function textField(label, moved, { wide = false } = {}) {
  const input = h("input", { type: "text", spellcheck: "false", autocomplete: "off", on: taken(moved) });
  const made = field(label, input, () => input.value, (value) => { input.value = value; });
  made.element.classList.toggle("sl-wide", wide);
  return made;
}

function numberField(label, moved, limits) {
  const input = h("input", { type: "number", ...limits, on: taken(moved) });
  const get = () => (input.value === "" ? Number(limits.min ?? 0) : Number(input.value));
  return field(label, input, get, (value) => { input.value = value; });
}

function slider(label, moved, limits) {
  const shown = h("output");
  const show = () => { shown.textContent = input.value; };
  const input = h("input", { type: "range", ...limits, on: { input: () => { show(); moved(); } } });
  const made = field(label, input, () => Number(input.value), (value) => { input.value = value; show(); }, [shown]);
  made.element.classList.add("sl-slider");
  made.limit = (min, max) => { input.min = min; input.max = max; show(); };
  return made;
}

function choice(label, moved) {
  const input = h("select", { on: { change: moved } });
  const made = field(label, input, () => input.value, (value) => { input.value = value; });
  made.options = (options) => {
    const pairs = Array.isArray(options) ? options.map((one) => [one, one]) : Object.entries(options);
    const before = input.value;
    input.replaceChildren(...pairs.map(([value, text]) => h("option", { value }, text)));
    if (before) input.value = before;
  };
  return made;
}

function tick(label, moved) {
  const input = h("input", { type: "checkbox", id: `steerlens-${++made}`, on: { change: moved } });
  const element = h("div", { class: "sl-field sl-tick" }, input, h("label", { for: input.id }, label));
  return { element, input, get: () => input.checked, set: (value) => { input.checked = Boolean(value); } };
}

function controls(moved) {
  const whole = { step: 1 };
  return {
    model: choice("model", moved),
    method: choice("vector from", moved),
    contrast: choice("contrast set", moved),
    positive: textField("towards", moved),
    negative: textField("away from", moved),
    prompt: textField("prompt", moved, { wide: true }),
    chat: tick("as a chat", moved),
    system: textField("system message", moved, { wide: true }),
    layer: slider("layer", moved, { ...whole, min: 0, max: 0 }),
    coeff: slider("coefficient", moved, { step: 0.5, min: 0, max: 0 }),
    placement: choice("placed at", moved),
    index: numberField("position", moved, whole),
    words: textField("next words to follow", moved),
    by: choice("rank tokens by change of", moved),
    measure: choice("by layer", moved),
    n: numberField("samples", moved, { ...whole, min: 1, max: 20 }),
    max_new_tokens: numberField("tokens", moved, { ...whole, min: 1, max: 400 }),
    seed: numberField("seed", moved, { ...whole, min: 0, max: 2147483647 }),
  };
}

// ---- what is shown --------------------------------------------------------------------------------------------------

function tokenChip(token) {
  const label = token.next.map(([next, before, after]) => `${next} ${before} → ${after}`).join(", ");
  const rows = token.next.map(([next, before, after]) =>
    h("tr", {}, h("th", { scope: "row" }, next), h("td", {}, before), h("td", {}, "→"), h("td", {}, after)));
  const tip = h("span", { class: "sl-tip", role: "tooltip", id: `steerlens-${++made}` },
    h("span", {}, `next after ${token.token}: KL ${token.kl}`),
    rows.length ? h("table", {}, h("tbody", {}, ...rows)) : "nothing changed");
  const chip = h("span", { class: "sl-token", tabindex: "0", role: "note", "aria-label": `${token.token}: KL ${token.kl}; next ${label || "unchanged"}` },
    token.token, tip);
  chip.style.setProperty("--share", `${Math.round(token.share * 100)}%`);
  return chip;
}

function streamsTable(streams) {
  const head = (name, note) => h("th", { scope: "col" }, name, h("small", {}, note));
  const rows = streams.rows.map((pair, number) =>
    h("tr", {}, h("th", { scope: "row" }, String(number)), ...pair.map((text) => h("td", { dir: "auto" }, text))));
  return h("table", { class: "sl-streams" },
    h("caption", {}, "Prompt: ", h("q", {}, streams.prompt)),
    h("thead", {}, h("tr", {}, h("td"), head("unsteered", streams.notes[0]), head("steered", streams.notes[1]))),
    h("tbody", {}, ...rows));
}

function tile({ label, value, note, hint }) {
  return h("div", { class: "sl-tile" }, h("span", {}, label), h("strong", {}, value), h("small", {}, note), h("small", {}, hint ?? ""));
}

function copyButton(name, text) {
  const button = h("button", { type: "button", class: "sl-copy" }, name);
  button.addEventListener("click", async () => {
    let done = true;
    try {
      await navigator.clipboard.writeText(text());
    } catch { // pages that are not served safely have no clipboard: copy the old way
      const area = h("textarea", {});
      area.value = text();
      document.body.append(area);
      area.select();
      done = document.execCommand("copy");
      area.remove();
    }
    button.textContent = done ? "Copied" : "Not copied: select it and press Ctrl+C";
    setTimeout(() => { button.textContent = name; }, 1600);
  });
  return button;
}

// The figures are drawn when plotly.js has come, with what the state says then.
async function figures(model, places, signal) {
  const Plotly = await library(model);
  if (signal.aborted) return;
  const names = ["shift_figure", "effect_figure", "damage_figure"], drawn = [];
  const draw = () => names.forEach((name, i) => {
    const json = model.get(name);
    if (!json || drawn[i] === json) return;
    drawn[i] = json;
    const { data, layout } = JSON.parse(json);
    layout.font = { ...layout.font, color: getComputedStyle(places[i]).color };
    Plotly.react(places[i], data, layout, JSON.parse(model.get("config")));
  });
  names.forEach((name) => model.on(`change:${name}`, draw));
  draw();
  const watch = new ResizeObserver(() => {
    places.forEach((place, i) => { if (drawn[i] && place.clientWidth > 0) Plotly.Plots.resize(place); });
  });
  places.forEach((place) => watch.observe(place));
  signal.addEventListener("abort", () => {
    names.forEach((name) => model.off(`change:${name}`, draw));
    watch.disconnect();
    places.forEach((place) => Plotly.purge(place));
  });
}

// ---- the whole ------------------------------------------------------------------------------------------------------

// Settings go out at most one at a time: the next when the one before is drawn, so that a dragged slider does not queue.
function sender(model, read) {
  let move = 0, waiting = false, more = false, timer;
  const send = () => {
    if (waiting) { more = true; return; }
    waiting = true;
    more = false;
    move += 1;
    model.set("settings", { ...model.get("settings"), ...read(), move });
    model.save_changes();
    clearTimeout(timer);
    timer = setTimeout(free, 3000); // a lost answer must not end the conversation
  };
  const free = () => { waiting = false; if (more) send(); };
  const flush = () => { if (more) { waiting = false; send(); } }; // what is ordered goes by the settings of now
  return { send, flush, answered: () => { if (model.get("drawn") >= move) { clearTimeout(timer); free(); } }, begin: (n) => { move = n; } };
}

function render({ model, el }) {
  const end = new AbortController();
  const listen = (name, act) => {
    model.on(`change:${name}`, act);
    end.signal.addEventListener("abort", () => model.off(`change:${name}`, act));
    act();
  };
  const read = () => Object.fromEntries(Object.entries(all).map(([name, control]) => [name, control.get()]));
  const outgoing = sender(model, read);
  let method;
  const moved = () => {
    // The mean of many texts has one row, which goes everywhere; a pair has a row for each token, which goes to the front.
    const now = all.method.get();
    if (now !== method && (now === "actadd") !== (method === "actadd")) all.placement.set(now === "actadd" ? "front" : "all");
    arrange();
    outgoing.send();
  };
  const all = controls(moved);
  outgoing.begin(model.get("settings").move ?? 0);
  const arrange = () => {
    method = all.method.get();
    const pair = method === "actadd";
    const shown = { contrast: !pair, positive: pair, negative: pair, index: all.placement.get() === "index", system: all.chat.get() };
    for (const [name, yes] of Object.entries(shown)) all[name].element.hidden = !yes;
  };

  const busy = h("span", { class: "sl-busy", role: "status" });
  const status = h("p", { class: "steerlens-status" });
  const errors = h("div", { class: "steerlens-error", role: "alert" });
  const tokens = h("div", { class: "sl-tokens" });
  const tiles = h("div", { class: "sl-tiles" });
  const places = PARTS.map(() => h("div", { class: "steerlens-figure" }));
  const complete = h("button", { type: "button", class: "sl-go", on: { click: () => { outgoing.flush(); model.send({ order: "complete" }); } } }, "Complete");
  const stop = h("button", { type: "button", hidden: true, on: { click: () => model.send({ order: "stop" }) } }, "Stop");
  const progress = h("progress", { max: 1, value: 0, hidden: true, "aria-label": "sampling" });
  const streams = h("div", { class: "sl-completions" });
  const pre = h("pre", { tabindex: "0" });
  const link = model.get("link") ? [copyButton("Copy link", () => location.href)] : [];
  const row = (...names) => h("div", { class: "sl-row" }, ...names.map((name) => all[name].element));

  el.classList.add("steerlens-explorer");
  el.append(
    row("model", "method", "contrast", "positive", "negative"),
    row("prompt", "chat", "system"),
    row("layer", "coeff", "placement", "index"),
    row("words", "by", "measure"),
    h("div", { class: "sl-line" }, status, busy), errors,
    tiles,
    h("div", { class: "sl-changed" }, h("span", {}, "What changed behind each token of the prompt (point at one, or move to it with Tab):"), tokens),
    h("div", { class: "steerlens-figures" }, ...places),
    h("div", { class: "sl-row sl-sampling" }, complete, stop, all.n.element, all.max_new_tokens.element, all.seed.element, progress),
    streams,
    h("details", { class: "steerlens-code" }, h("summary", {}, "As code"), copyButton("Copy", () => model.get("code")), pre),
    ...link,
  );

  listen("options", () => {
    const options = model.get("options");
    const lists = { model: "models", method: "methods", contrast: "contrasts", placement: "places", by: "orders", measure: "measures" };
    for (const [name, list] of Object.entries(lists)) all[name].options(options[list]);
    all.layer.limit(0, options.n_layers - 1);
    all.coeff.limit(...options.coeffs);
    all.chat.input.disabled = !options.chats;
    all.chat.element.title = options.chats ? "" : "this model has no chat template";
  });
  const fill = () => {
    for (const [name, value] of Object.entries(model.get("settings"))) {
      if (all[name] && document.activeElement !== all[name].input && (all[name].get() !== value || all[name].input.value === "")) all[name].set(value);
    }
    arrange();
  };
  listen("settings", fill);
  listen("options", fill);
  listen("drawn", () => outgoing.answered());
  listen("fields", () => {
    for (const [name, texts] of Object.entries(model.get("fields"))) {
      const shown = texts.map((some) => h("span", {}, ...some.map((token) => h("code", {}, token))));
      all[name].chips?.replaceChildren(...shown);
    }
  });
  listen("status", () => status.replaceChildren(...model.get("status").flatMap((one, i) => [i ? " · " : "", i ? one : h("b", {}, one)])));
  listen("errors", () => errors.replaceChildren(...model.get("errors").map((line) => h("div", {}, line))));
  listen("tokens", () => tokens.replaceChildren(...model.get("tokens").map(tokenChip)));
  listen("tiles", () => tiles.replaceChildren(...model.get("tiles").map(tile)));
  listen("streams", () => { if (model.get("streams").rows) streams.replaceChildren(streamsTable(model.get("streams"))); });
  listen("code", () => { pre.textContent = model.get("code"); });
  let soon;
  listen("busy", () => { // what is over in a moment needs no sign
    clearTimeout(soon);
    const text = model.get("busy");
    if (!text) busy.textContent = "";
    else soon = setTimeout(() => { busy.textContent = text; }, 120);
    const sampling = text.startsWith("sampling");
    if (sampling || !text) { complete.hidden = sampling; stop.hidden = !sampling; }
  });
  listen("progress", () => {
    progress.hidden = model.get("progress") === null;
    progress.value = model.get("progress") ?? 0;
  });
  listen("stale", () => {
    const stale = model.get("stale");
    places.forEach((place, i) => place.classList.toggle("steerlens-stale", stale.includes(PARTS[i])));
    [status, pre].forEach((one) => one.classList.toggle("steerlens-stale", stale.includes("shift")));
    tiles.classList.toggle("steerlens-stale", stale.includes("effect"));
    tokens.classList.toggle("steerlens-stale", stale.includes("tokens"));
    streams.classList.toggle("steerlens-stale", stale.includes("completions"));
  });
  figures(model, places, end.signal).catch((error) => { errors.textContent = String(error); });
  return () => end.abort();
}

export default { render };
