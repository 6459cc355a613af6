// Draws the figures of a page with one plotly.js for the whole site, and only on pages that have figures.
(() => {
  const script = document.currentScript;
  const config = {
    displaylogo: false, showSendToCloud: false, responsive: true,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"], toImageButtonOptions: { format: "svg" },
  };
  const places = document.querySelectorAll(".sl-figure");
  if (!places.length) return;
  const draw = () => places.forEach((place) => {
    const figure = JSON.parse(place.querySelector("script").textContent);
    delete figure.layout.width;
    Plotly.newPlot(place, figure.data, figure.layout, config);
  });
  const plotly = document.createElement("script");
  plotly.src = new URL("plotly.min.js", script.src).href;
  plotly.onload = draw;
  document.head.append(plotly);
})();
