// Draws the charts when they come near the screen, in the colours of the page, and again when it turns dark or light.
"use strict";
const report = JSON.parse(document.getElementById("data").textContent);

(() => {
  // Okabe and Ito 2008; on dark ground the two darkest are lifted.
  const light = {
    series: ["#0072b2", "#d55e00", "#009e73", "#b8578f", "#8a6d00", "#3b9bd3", "#5c6068", "#9aa0a8"],
    scale: [[0, "#f4f6f8"], [0.02, "#dbe9f3"], [0.25, "#8dbfdf"], [0.6, "#2f86bd"], [1, "#053a5f"]],
    text: "#1b1d20", grid: "#e6e6e2", line: "#b9bcc2", label: "#ffffff",
  };
  const dark = {
    series: ["#56b4e9", "#f28e4b", "#2fc39a", "#df9bc4", "#f0e442", "#8fd0f5", "#a3a9b3", "#6d747f"],
    scale: [[0, "#20242a"], [0.02, "#22384a"], [0.25, "#265f86"], [0.6, "#4a9fd4"], [1, "#d9f0ff"]],
    text: "#e8eaed", grid: "#2d3138", line: "#555b66", label: "#23272d",
  };
  const isDark = matchMedia("(prefers-color-scheme: dark)");
  const theme = () => (isDark.matches ? dark : light);

  function coloured(figure) {
    const { series, scale, text, grid, line, label } = theme();
    const copy = JSON.parse(JSON.stringify(figure));
    for (const trace of copy.data) {
      const meta = trace.meta || {};
      if (meta.colour !== undefined) {
        const colour = series[meta.colour % series.length];
        trace.line = { ...trace.line, color: colour };
        if (trace.type === "bar" || (trace.mode || "").includes("markers")) {
          trace.marker = { ...trace.marker, color: colour };
        }
        if (trace.type === "bar") delete trace.line;
      }
      if (meta.scale) trace.colorscale = scale;
      if (trace.colorbar) trace.colorbar.outlinewidth = 0;
    }
    const layout = copy.layout;
    layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
    layout.font = { family: getComputedStyle(document.body).fontFamily, size: 12, color: text };
    layout.hoverlabel = { bgcolor: label, bordercolor: line, font: { color: text, size: 12 } };
    layout.dragmode = false; // a finger on a chart scrolls the page
    for (const key of Object.keys(layout)) {
      if (/^[xy]axis/.test(key)) {
        Object.assign(layout[key], { gridcolor: grid, zerolinecolor: grid, linecolor: line, tickcolor: line });
      }
    }
    return copy;
  }

  // The library's script is known to the page's security policy by its hash, wherever it comes from.
  async function unpackLibrary() {
    const packed = Uint8Array.from(atob(document.getElementById("library").textContent), (c) => c.charCodeAt(0));
    const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(unpacked).text();
    document.head.append(script);
  }

  const nextTask = () => new Promise((resolve) => setTimeout(resolve));
  // To read and compile 4.8 MB takes as long as all else together: the page is painted before.
  const library = new Promise((resolve) => addEventListener("load", () => requestAnimationFrame(resolve)))
    .then(nextTask)
    .then(unpackLibrary);

  const options = { responsive: true, displaylogo: false, displayModeBar: false };
  const drawn = new Set();
  function draw(place) {
    drawn.add(place);
    const { data, layout } = coloured(report.charts[place.dataset.chart]);
    return Plotly.react(place, data, layout, options);
  }

  // One after the other, and the page answers in between.
  let queue = library.catch(() => {
    for (const place of places) place.textContent = "The charts could not be drawn: they need a browser of 2023 or later.";
  });
  function drawInTurn(place) {
    queue = queue
      .then(() => draw(place))
      .then(() => {
        place.dataset.drawn = "";
      })
      .catch((error) => console.error(error))
      .then(nextTask);
  }

  const places = [...document.querySelectorAll("[data-chart]")];
  for (const place of places) {
    // The place keeps its height before it is drawn: nothing below it jumps, and links to sections meet them.
    place.style.height = `${report.charts[place.dataset.chart].layout.height + 16}px`;
  }
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (isIntersecting) {
          watcher.unobserve(target);
          drawInTurn(target);
        }
      }
    },
    { rootMargin: "600px" },
  );
  places.forEach((place) => watcher.observe(place));
  isDark.addEventListener("change", () => drawn.forEach(draw));
  addEventListener("beforeprint", () => window.Plotly && places.forEach(draw));
})();
