// The page of `steerlens explore`: the explorer's own front end, with a socket where Jupyter has its kernel.
import explorer from "./explorer.js";

const token = new URLSearchParams(location.search).get("token") ?? "";
const place = document.getElementById("explorer");
const said = document.getElementById("connection");
const state = {}, listeners = {};
let dirty = new Set(), begun = false;

const socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/socket?token=${encodeURIComponent(token)}`);

// What anywidget hands to a front end, as far as the explorer uses it.
const model = {
  get: (name) => state[name],
  set: (name, value) => { state[name] = value; dirty.add(name); },
  save_changes: () => {
    socket.send(JSON.stringify({ set: Object.fromEntries([...dirty].map((name) => [name, state[name]])) }));
    if (dirty.has("settings")) remember();
    dirty = new Set();
  },
  send: (content) => socket.send(JSON.stringify({ message: content })),
  on: (event, act) => (listeners[event] ??= new Set()).add(act),
  off: (event, act) => listeners[event]?.delete(act),
};

// The address always says what is set: a bookmark, or the link that is sent to somebody, opens the same.
function remember() {
  const { move, ...settings } = state.settings;
  history.replaceState(null, "", `${location.pathname}${location.search}#${encodeURIComponent(JSON.stringify(settings))}`);
}

function remembered() {
  try {
    return JSON.parse(decodeURIComponent(location.hash.slice(1)));
  } catch {
    return null;
  }
}

socket.addEventListener("message", ({ data }) => {
  for (const [name, value] of Object.entries(JSON.parse(data))) {
    state[name] = value;
    (listeners[`change:${name}`] ?? []).forEach((act) => act());
    if (begun && name === "settings") remember();
  }
  if (begun || !state.ready) return;
  begun = true;
  said.textContent = "";
  explorer.render({ model, el: place });
  const before = remembered();
  if (before && typeof before === "object") {
    model.set("settings", { ...state.settings, ...before, move: (state.settings.move ?? 0) + 1 });
    model.save_changes();
    (listeners["change:settings"] ?? []).forEach((act) => act());
  } else {
    model.send({ order: "update" });
  }
});

socket.addEventListener("close", () => {
  said.textContent = "The connection to steerlens explore is gone: start it again, and open the address that it prints.";
  place.inert = true;
});
