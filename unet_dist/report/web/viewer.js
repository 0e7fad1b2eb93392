// Pictures: class ids are decoded once and coloured here, so that classes can be switched on and off.
"use strict";
(() => {
  const { pictures, classes } = report;
  const areMany = classes.length > 255;  // ids of 16 bits: red is the lower byte, green the upper one
  const IGNORED = areMany ? 65535 : 255;
  const WRONG = [213, 94, 0];
  const decoded = new Map();

  // One promise a source: an Image, ready to be drawn.
  function load(source) {
    if (!decoded.has(source)) {
      decoded.set(source, new Promise((resolve, reject) => {
        const image = new Image();
        image.onload = () => resolve(image);
        image.onerror = reject;
        image.src = source;
      }));
    }
    return decoded.get(source);
  }

  // Class ids of a picture: they travel as grey values, or as colours where they are many. Of overlapping classes each grey value
  // holds four, two bits each: 0 absent, 1 present, 3 counts nowhere. The next four classes follow below.
  async function loadIds(source) {
    const key = `ids ${source}`;
    if (!decoded.has(key)) {
      decoded.set(key, load(source).then((image) => {
        const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
        const context = canvas.getContext("2d", { willReadFrequently: true });
        context.drawImage(image, 0, 0);
        const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
        const ids = new Uint16Array(data.length / 4);
        for (let i = 0; i < ids.length; i += 1) ids[i] = data[4 * i] + (areMany ? 256 * data[4 * i + 1] : 0);
        return ids;
      }));
    }
    return decoded.get(key);
  }

  function paint(context, width, height, opacity, colourOf) {
    const layer = new OffscreenCanvas(width, height);
    const overlay = new ImageData(width, height);
    const pixels = overlay.data;
    for (let i = 0; i < width * height; i += 1) {
      const colour = colourOf(i);
      if (colour) {
        pixels[4 * i] = colour[0];
        pixels[4 * i + 1] = colour[1];
        pixels[4 * i + 2] = colour[2];
        pixels[4 * i + 3] = opacity;
      }
    }
    layer.getContext("2d").putImageData(overlay, 0, 0);
    context.drawImage(layer, 0, 0);
  }

  const codeOf = (ids, i, id, pixels) => (ids[i + pixels * (id >> 2)] >> (2 * (id & 3))) & 3;

  // The classes of a pixel: one, several or none; null where nothing counts.
  function classesAt(ids, i, { overlap, width, height }) {
    if (!overlap) return ids[i] === IGNORED ? null : [ids[i]];
    const codes = classes.map((_, id) => codeOf(ids, i, id, width * height));
    return codes.every((code) => code === 3) ? null : [...codes.keys()].filter((id) => codes[id] === 1);
  }

  // The mean of their colours, as the files in figures/ have it; null where no class is to be seen.
  function colourOf(found, hidden) {
    if (found === null) return [0, 0, 0];
    const seen = found.filter((id) => !hidden.has(id)).map(colourOfClass);
    return seen.length ? [0, 1, 2].map((c) => seen.reduce((sum, colour) => sum + colour[c], 0) / seen.length) : null;
  }

  // Whether a prediction errs in a class that is shown: of one class per pixel in the label's, else in any that counts.
  function isWrong(label, prediction, i, { overlap, width, height }, hidden) {
    if (!overlap) return label[i] !== IGNORED && label[i] !== prediction[i] && !hidden.has(label[i]);
    return classes.some((_, id) => {
      const code = codeOf(label, i, id, width * height);
      return code !== 3 && code !== codeOf(prediction, i, id, width * height) && !hidden.has(id);
    });
  }

  const colourOfClass = (id) => (id === IGNORED || !classes[id] ? [0, 0, 0] : classes[id].colour);

  // Draws one layer of a picture: "image", "label", "prediction N" or "errors N".
  async function drawLayer(canvas, picture, layer, strength, hidden) {
    const { width, height } = picture;
    const [kind, number] = layer.split(" ");
    const image = await load(picture.image);
    const label = kind === "label" || kind === "errors" ? await loadIds(picture.label) : null;
    const isOfRun = kind === "prediction" || kind === "errors";
    const prediction = isOfRun ? await loadIds(picture.predictions[Number(number || 0)].source) : null;
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    if (kind !== "image") context.filter = "grayscale(1)";
    context.drawImage(image, 0, 0, width, height);
    context.filter = "none";
    const opacity = Math.round(255 * strength);
    if (kind === "label" || kind === "prediction") {
      const ids = label || prediction;
      paint(context, width, height, opacity, (i) => colourOf(classesAt(ids, i, picture), hidden));
    } else if (kind === "errors") {
      paint(context, width, height, opacity, (i) => (isWrong(label, prediction, i, picture, hidden) ? WRONG : null));
    }
  }

  // ------------------------------------------------------------------------------------------------ rows of three

  const rows = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (isIntersecting) {
          rows.unobserve(target);
          const picture = pictures.find(({ name }) => name === target.dataset.row);
          for (const canvas of target.querySelectorAll("canvas")) {
            drawLayer(canvas, picture, canvas.dataset.layer, 1, new Set());
          }
        }
      }
    },
    { rootMargin: "400px" },
  );
  document.querySelectorAll("[data-row]").forEach((row) => rows.observe(row));

  function swatch(id) {
    const box = document.createElement("span");
    box.className = "swatch";
    box.style.background = `rgb(${colourOfClass(id)})`;
    return box;
  }

  for (const list of document.querySelectorAll("[data-swatches]")) {
    const ids = [...new Set(pictures.flatMap((picture) => picture.classes))].sort((a, b) => a - b);
    for (const id of ids) {
      const entry = document.createElement("li");
      entry.append(swatch(id), classes[id].name);
      list.append(entry);
    }
  }

  // ------------------------------------------------------------------------------------------------ the viewer

  const viewer = document.querySelector("[data-viewer]");
  if (!viewer || !pictures.length) return;
  const find = (name) => viewer.querySelector(`[data-${name}]`);
  const stage = find("stage");
  const divider = find("divider");
  const sides = [0, 1].map((side) => viewer.querySelector(`[data-side="${side}"]`));
  const hidden = new Set();
  let picture = pictures[0];

  function layersOf({ predictions }) {
    const one = predictions.length === 1;
    return [
      ["image", "image"],
      ["label", "label"],
      ...predictions.map(({ title }, i) => [`prediction ${i}`, one ? "prediction" : title]),
      ...predictions.map(({ title }, i) => [`errors ${i}`, one ? "errors" : `errors: ${title}`]),
    ];
  }

  for (const [side, select] of sides.entries()) {
    for (const [value, text] of layersOf(picture)) select.add(new Option(text, value));
    const several = picture.predictions.length > 1;
    select.value = side ? `prediction ${several ? 1 : 0}` : several ? "prediction 0" : "label";
    select.addEventListener("change", draw);
  }

  async function draw() {
    const strength = find("strength").value / 100;
    await Promise.all(sides.map((select, side) => {
      viewer.querySelector(`[data-tag="${side}"]`).textContent = select.selectedOptions[0].textContent;
      return drawLayer(viewer.querySelector(`[data-canvas="${side}"]`), picture, select.value, strength, hidden);
    }));
    viewer.dataset.drawn = String(Number(viewer.dataset.drawn || 0) + 1);
  }

  function move() {
    stage.style.setProperty("--at", `${divider.value}%`);
    divider.setAttribute("aria-valuetext", `${Math.round(divider.value)} % left, ${Math.round(100 - divider.value)} % right`);
  }
  divider.addEventListener("input", move);
  find("strength").addEventListener("input", draw);

  function showLegend() {
    const legend = find("legend");
    legend.replaceChildren(...picture.classes.map((id) => {
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.class = id;
      button.setAttribute("aria-pressed", String(!hidden.has(id)));
      button.append(swatch(id), classes[id].name);
      button.addEventListener("click", () => {
        if (!hidden.delete(id)) hidden.add(id);
        button.setAttribute("aria-pressed", String(!hidden.has(id)));
        draw();
      });
      return button;
    }));
  }

  function setAll(isShown) {
    picture.classes.forEach((id) => (isShown ? hidden.delete(id) : hidden.add(id)));
    showLegend();
    draw();
  }
  find("all").addEventListener("click", () => setAll(true));
  find("none").addEventListener("click", () => setAll(false));

  function choose(chosen) {
    picture = chosen;
    stage.style.aspectRatio = `${picture.width} / ${picture.height}`;
    for (const button of find("strip").children) {
      button.setAttribute("aria-pressed", String(button.dataset.name === picture.name));
    }
    showLegend();
    return draw();
  }

  for (const each of pictures) {
    const button = document.createElement("button");
    const image = new Image();
    const miou = each.predictions.length === 1 && each.miou !== null ? `mean IoU ${each.miou.toFixed(3)}` : "";
    const reason = each.reason === "worst" ? "worst" : "";
    button.type = "button";
    button.dataset.name = each.name;
    image.src = each.image;
    image.alt = "";
    image.loading = "lazy";
    button.title = each.id;
    button.append(image);
    for (const line of [each.id, [reason, miou].filter(Boolean).join(" · ")].filter(Boolean)) {
      const text = document.createElement("span");
      text.textContent = line;
      button.append(text);
    }
    button.addEventListener("click", () => choose(each));
    find("strip").append(button);
  }

  stage.addEventListener("pointermove", async (event) => {
    const shown = picture;
    const box = stage.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / box.width) * shown.width);
    const row = Math.floor(((event.clientY - box.top) / box.height) * shown.height);
    const index = Math.min(Math.max(row * shown.width + column, 0), shown.width * shown.height - 1);
    const nameOf = (ids) => (classesAt(ids, index, shown) || []).map((id) => classes[id].name).join(", ") || "none";
    const parts = [["label", nameOf(await loadIds(shown.label))]];
    for (const { title, source } of shown.predictions) parts.push([title, nameOf(await loadIds(source))]);
    find("readout").replaceChildren(...parts.flatMap(([title, name], i) => {
      const bold = document.createElement("b");
      bold.textContent = name;
      return [`${i ? " · " : ""}${title}: `, bold];
    }));
  });

  for (const button of document.querySelectorAll("[data-open]")) {
    button.addEventListener("click", () => {
      choose(pictures.find(({ name }) => name === button.dataset.open));
      document.getElementById("look").scrollIntoView();
      divider.focus({ preventScroll: true });
    });
  }
  choose(picture);
  move();
})();
