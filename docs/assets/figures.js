// Draws the figures of a page with one plotly.js for the whole site, and only on pages that have figures.
(() => {
  const script = document.currentScript;
  const config = {
    displaylogo: false, showSendToCloud: false, responsive: true,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"], toImageButtonOptions: { format: "svg" },
  };
  const NARROW = 560; // pixels, below which the legend stands under the plot and titles take several lines
  const places = document.querySelectorAll(".sl-figure");
  if (!places.length) return;

  const lines = (text, letters) => {
    const found = [""];
    for (const word of (text || "").split(/ |<br>/)) {
      if (found.at(-1) && found.at(-1).length + word.length >= letters) found.push("");
      found[found.length - 1] += (found.at(-1) ? " " : "") + word;
    }
    return found;
  };

  const narrowed = (figure, width) => {
    const layout = figure.layout, template = layout.template?.layout ?? {};
    const legend = layout.legend ?? {}, below = legend.orientation !== "h";
    const shown = figure.data.some((trace) => trace.showlegend !== false && trace.name);
    const title = layout.title ?? {}, head = lines(title.text, width / 9), sub = lines(title.subtitle?.text, width / 7);
    const top = 34 + 19 * head.length + (title.subtitle?.text ? 16 * sub.length : 0) + (layout.annotations ? 14 : 0);
    const bottom = layout.margin?.b ?? template.margin?.b ?? 64;
    const entries = [...new Set(figure.data.filter((trace) => trace.showlegend !== false).map((trace) => trace.name))];
    const rows = entries.reduce((sum, name) => sum + (name || "").split("<br>").length, 1);
    const room = shown && below ? 20 + 19 * rows : 0;
    layout.height = (layout.height ?? 450) + room;
    layout.margin = { ...layout.margin, l: 44, r: 10, t: Math.max(layout.margin?.t ?? 60, top), b: bottom + room };
    layout.title = { ...title, xref: "container", x: 0.03, text: head.join("<br>"), font: { ...title.font, size: 15 },
      subtitle: { ...title.subtitle, text: sub.join("<br>"), font: { size: 12 } } };
    if (shown && below) {
      const tall = layout.height - layout.margin.t - layout.margin.b;
      layout.legend = { ...legend, orientation: "h", x: 0, xanchor: "left", y: -bottom / tall, yanchor: "top", maxheight: 1 };
    }
    for (const axis of Object.keys(layout).filter((name) => name.startsWith("xaxis"))) {
      const named = layout[axis].title;
      if (named?.text) named.text = lines(named.text, (width - 60) / 8).join("<br>");
    }
    for (const trace of figure.data) {
      if (trace.type === "bar" && trace.orientation === "h") delete trace.text; // probabilities are there on hover
    }
    return figure;
  };

  const draw = () => places.forEach((place) => {
    const figure = JSON.parse(place.querySelector("script").textContent);
    const layout = figure.layout;
    delete layout.width;
    layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)"; // the page may be dark
    for (const axis of new Set(["xaxis", "yaxis", ...Object.keys(layout).filter((name) => /^[xy]axis/.test(name))])) {
      layout[axis] = { ...layout[axis], gridcolor: "rgba(128,136,148,0.2)", zerolinecolor: "rgba(128,136,148,0.55)" };
    }
    const laidOut = figure.layout.xaxis?.visible === false; // a text set in lines: it scrolls sideways
    if (place.clientWidth < NARROW && laidOut) {
      figure.layout.width = 760;
      place.style.overflowX = "auto";
    } else if (place.clientWidth < NARROW) narrowed(figure, place.clientWidth);
    else if (layout.title?.text) {
      const head = lines(layout.title.text, (place.clientWidth - 90) / 10);
      layout.title.text = head.join("<br>");
      layout.margin = { ...layout.margin, t: (layout.margin?.t ?? 84) + 22 * (head.length - 1) };
    }
    Plotly.newPlot(place, figure.data, figure.layout, config);
  });
  const plotly = document.createElement("script");
  plotly.src = new URL("plotly.min.js", script.src).href;
  plotly.onload = draw;
  document.head.append(plotly);
})();
