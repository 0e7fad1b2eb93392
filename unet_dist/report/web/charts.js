// Draws the charts, those on the screen first, in the colours of the page, and again when it turns dark or light.
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

  const NARROW_PX = 520;

  function fitted(figure, width) {
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
      if (trace.colorbar) {
        trace.colorbar.outlinewidth = 0;
        trace.showscale = width >= NARROW_PX;
      }
    }
    const layout = copy.layout;
    if (width < NARROW_PX) {
      for (const [axis, change] of Object.entries(layout.meta?.narrow || {})) Object.assign(layout[axis], change);
    }
    layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
    layout.font = { family: getComputedStyle(document.body).fontFamily, size: 13, color: text };
    layout.hoverlabel = { bgcolor: label, bordercolor: line, font: { color: text, size: 13 } };
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
    const text = atob(document.getElementById("library").textContent);
    const packed = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i += 1) packed[i] = text.charCodeAt(i);
    const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(unpacked).text();
    document.head.append(script);
  }

  const nextFrame = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
  const nextTask = () => new Promise((resolve) => setTimeout(resolve));
  // To read and compile 1.5 MB takes as long as all else together: the page is painted before.
  const library = new Promise((resolve) => addEventListener("load", () => requestAnimationFrame(resolve)))
    .then(nextTask)
    .then(unpackLibrary);

  const options = { responsive: true, displaylogo: false, displayModeBar: false };
  const drawn = new Set();
  function draw(place) {
    drawn.add(place);
    const { data, layout } = fitted(report.charts[place.dataset.chart], place.clientWidth);
    return Plotly.react(place, data, layout, options);
  }

  const places = [...document.querySelectorAll("[data-chart]")];
  for (const place of places) {
    // The place keeps its height before it is drawn: nothing below it jumps, and links to sections meet them.
    const { height, meta } = report.charts[place.dataset.chart].layout;
    place.style.height = `${height}px`;
    if (meta?.least_width) place.style.minWidth = `${meta.least_width}px`;
  }

  // One after the other, what the reader sees first, and the page answers in between.
  const waiting = new Set();
  const distance = (place) => {
    const { top, bottom } = place.getBoundingClientRect();
    return Math.max(0, top - innerHeight, -bottom);
  };
  let isDrawing = false;
  async function drawWaiting() {
    if (isDrawing) return;
    isDrawing = true;
    await library;
    while (waiting.size) {
      const place = [...waiting].reduce((best, other) => (distance(other) < distance(best) ? other : best));
      waiting.delete(place);
      try {
        await draw(place);
        place.dataset.drawn = "";
      } catch (error) {
        console.error(error);
      }
      await nextFrame();
    }
    isDrawing = false;
  }
  library.catch(() => {
    for (const place of places) place.textContent = "The charts could not be drawn: they need a browser of 2023 or later.";
  });

  const watcher = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (isIntersecting) {
          watcher.unobserve(target);
          waiting.add(target);
        }
      }
      drawWaiting().catch(() => {});
    },
    { rootMargin: "600px" },
  );
  places.forEach((place) => watcher.observe(place));
  isDark.addEventListener("change", () => drawn.forEach(draw));
  addEventListener("beforeprint", () => window.Plotly && places.forEach(draw));
})();
