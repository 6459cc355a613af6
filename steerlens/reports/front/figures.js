// Figures: drawn when plotly.js is there; on a phone the same figure is laid out for its width.

let loading = null;
const library = () => loading ??= (async () => {
  if (window.Plotly) return window.Plotly;
  const packed = document.getElementById("plotly-library");
  if (!packed) throw new Error("plotly.min.js is not beside this page; keep the two in one folder to see the figures.");
  if (!window.DecompressionStream) {
    throw new Error("This browser is too old to draw the figures; any of 2023 or later can. The numbers stand below.");
  }
  const script = element("script");
  script.textContent = await unpacked(packed.textContent);
  document.head.append(script);
  packed.remove();
  return window.Plotly;
})();

const narrow = matchMedia("(max-width: 40rem)");
const below = 60; // pixels of an axis' numbers and title, below which the legend begins

// Breaks a title at spaces; one with markup of its own is left alone.
function broken(text, letters) {
  if (!text || text.includes("<")) return { text, lines: text ? 1 : 0 };
  const lines = [""];
  for (const word of text.split(" ")) {
    const longer = lines.at(-1) ? `${lines.at(-1)} ${word}` : word;
    if (longer.length > letters && lines.at(-1)) lines.push(word);
    else lines[lines.length - 1] = longer;
  }
  return { text: lines.join("<br>"), lines: lines.length };
}

function axesOf(layout, letter) {
  return Object.keys(layout).filter((name) => new RegExp(`^${letter}axis\\d*$`).test(name)).map((name) => layout[name]);
}

// Panels that stand side by side go one below the other.
function stacked(layout) {
  const across = axesOf(layout, "x"), up = axesOf(layout, "y");
  const begins = new Set(across.map((axis) => axis.domain?.[0] ?? 0));
  const heights = new Set(up.map((axis) => axis.domain?.[0] ?? 0));
  if (begins.size < 2 || begins.size !== across.length || heights.size > 1 || up.length !== across.length) return 1;
  const count = across.length;
  across.forEach((axis, place) => {
    axis.domain = [0, 1];
    up[place].domain = [1 - (place + 0.72) / (count - 0.28), 1 - place / (count - 0.28)];
  });
  return count;
}

// Long names on a vertical axis would leave no room for the plot: they go on several lines. The height they need.
function brokenNames(layout, data) {
  let height = 0;
  for (const name of Object.keys(layout).filter((one) => /^yaxis\d*$/.test(one))) {
    const axis = layout[name], id = name.replace("axis", "");
    const own = data.filter((trace) => (trace.yaxis ?? "y") === id && Array.isArray(trace.y)).flatMap((trace) => trace.y);
    const values = axis.tickvals ?? [...new Set(own.filter((one) => typeof one === "string"))];
    const names = (axis.ticktext ?? values).map(String);
    if (!names.some((one) => one.length > 20)) continue;
    const made = names.map((one) => broken(one, 20));
    const lines = Math.max(...made.map((one) => one.lines));
    Object.assign(axis, { tickmode: "array", tickvals: values, ticktext: made.map((one) => one.text), tickfont: { size: 11 } });
    height = Math.max(height, names.length * (lines * 13 + 4));
  }
  return height;
}

function forPhone(figure, width) {
  const data = structuredClone(figure.data), layout = structuredClone(figure.layout);
  const { margin: usual = {} } = layout.template?.layout ?? {};
  const margin = { ...usual, ...layout.margin };
  const panels = stacked(layout);
  for (const axis of [...axesOf(layout, "x"), ...axesOf(layout, "y")]) {
    axis.title = { ...axis.title, font: { ...axis.title?.font, size: 13 } };
  }
  const title = broken(layout.title?.text, Math.floor((width - 16) / 8.4));
  const second = broken(layout.title?.subtitle?.text, Math.floor((width - 16) / 6.6));
  layout.title = { ...layout.title, text: title.text, x: 8 / width, xref: "container", y: 1, yanchor: "top",
    pad: { t: 12 }, font: { size: 15 }, subtitle: { text: second.text, font: { size: 12 } } };
  const usualArea = (figure.layout.height ?? 450) - (margin.t ?? 84) - (margin.b ?? 64);
  const area = panels > 1 ? panels * 300 : Math.max(180, usualArea, brokenNames(layout, data));
  const top = 26 + 19 * title.lines + 17 * second.lines;
  const legend = { ...layout.legend, orientation: "h", x: 0, xanchor: "left", y: -below / area, yanchor: "top",
    title: { ...layout.legend?.title, side: "top" }, font: { size: 12 } };
  // What stands below the plot: numbers and title of the axis, the legend, the colour bars.
  const laid = (legendHeight) => {
    let used = below + legendHeight;
    const own = { ...structuredClone(layout), legend };
    for (const name of Object.keys(own).filter((one) => one.startsWith("coloraxis"))) {
      if (own[name].showscale === false) continue;
      const bar = own[name].colorbar ?? {};
      own[name].colorbar = { ...bar, orientation: "h", x: 0, xanchor: "left", len: 1, y: -used / area, yanchor: "top",
        thickness: 10, title: { ...bar.title, side: "top", font: { size: 12 } } };
      used += 64;
    }
    return { ...own, margin: { l: 46, r: 16, t: top, b: used }, height: top + area + used };
  };
  return { data, laid };
}

async function drawn(source, options) {
  const plot = document.getElementById(source.dataset.figure), figure = parsed(source);
  let Plotly;
  try {
    Plotly = await library();
  } catch (problem) {
    plot.style.minHeight = "0";
    plot.append(element("p", { class: "missing" }, problem.message));
    return;
  }
  const draw = async () => {
    if (!narrow.matches) {
      plot.style.minHeight = `${figure.layout.height ?? 450}px`;
      await Plotly.react(plot, structuredClone(figure.data), structuredClone(figure.layout), options);
      return;
    }
    plot.style.minHeight = "0";
    const { data, laid } = forPhone(figure, plot.clientWidth);
    const show = (legendHeight) => Plotly.react(plot, data, laid(legendHeight), { ...options, displayModeBar: false });
    await show(0);
    const legend = plot.querySelector(".legend .bg"); // how high it is, is known once it is drawn
    if (legend) await show(legend.getBoundingClientRect().height + 8);
  };
  await draw();
  narrow.addEventListener("change", draw);
  plot.on("plotly_click", ({ points }) => {
    const number = points.map((point) => point.customdata).find((one) => typeof one === "number");
    if (number !== undefined) document.dispatchEvent(new CustomEvent("condition", { detail: number }));
  });
  const name = fileName(document.title, plot.getAttribute("aria-label"));
  const picture = () => Plotly.downloadImage(
    { data: figure.data, layout: { ...figure.layout, paper_bgcolor: "#ffffff" } },
    { format: "png", width: 1000, height: figure.layout.height ?? 450, scale: 2, filename: name });
  const label = `Save the figure “${plot.getAttribute("aria-label")}” as PNG`;
  plot.parentElement.append(element("div", { class: "tools" }, button("PNG", label, picture)));
}

const options = parsed(document.getElementById("plotly-config") ?? { textContent: "{}" });
for (const source of document.querySelectorAll("script[data-figure]")) drawn(source, options);
addEventListener("beforeprint", () => {
  document.querySelectorAll(".js-plotly-plot").forEach((plot) => window.Plotly.Plots.resize(plot));
});
