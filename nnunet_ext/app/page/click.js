"use strict";
// Clicks go to the server as a list, and the mask of a slice comes back; whatever else one sees is drawn here.

const $ = (id) => document.getElementById(id);
const COLOURS = [[255, 99, 71], [64, 196, 255], [255, 214, 64], [129, 230, 120], [224, 130, 255], [255, 160, 90]];
const PRESETS = { "liver": [150, 30], "soft tissue": [400, 40], "lung": [1500, -600], "bone": [1800, 400] };
let page; // what the server says about cases and classes
let image = null; // what it says about the open one
let z = 0, prompts = [], past = [], saved = true, fetched = new Map(), request = 0;
let view = { scale: 1, x: 0, y: 0 }, fitted = true, grey = [0, 255];
let cross = null, corner = null, dragged = null, shown = true;

async function ask(path, body = {}, binary = false) {
  const response = await fetch(`api/${path}`, {
    method: "POST", headers: { "Content-Type": "application/json", "X-Nnunet-Ext": "1" }, body: JSON.stringify(body),
  }).catch(() => { throw new Error("nnunet_ext click does not answer; was it ended?"); });
  if (!response.ok) throw new Error((await response.json()).error);
  return binary ? response.arrayBuffer() : response.json();
}

function say(text, alarm = false) {
  $("status").textContent = text;
  $("status").classList.toggle("alarm", alarm);
}

/** Run what a person has asked for; say what goes wrong, and how far slow work is. */
async function run(what, work) {
  let waiting = true;
  const tell = async () => {
    const { encoded, slices } = await ask("progress").catch(() => ({}));
    if (waiting && slices > 1) say(`${what}: slice ${encoded} of ${slices}`);
    else if (waiting) say(`${what} …`);
  };
  const clock = setInterval(tell, 700);
  try {
    const text = await work();
    if (text !== undefined) say(text);
  } catch (error) {
    say(error.message, true);
  } finally {
    waiting = false;
    clearInterval(clock);
  }
}

/* ---- the image ---- */

function sheet(width, height, fill) {
  const made = Object.assign(document.createElement("canvas"), { width, height });
  const context = made.getContext("2d"), data = context.createImageData(width, height);
  fill(data.data);
  context.putImageData(data, 0, 0);
  return made;
}

function pictureOf(values) {
  const [, height, width] = image.shape, [low, high] = grey, step = image.colour ? 3 : 1;
  return sheet(width, height, (out) => {
    for (let i = 0; i < width * height; i++) {
      for (let c = 0; c < 3; c++) {
        const value = values[i * step + (step === 3 ? c : 0)];
        out[4 * i + c] = step === 3 ? value : (255 * (value - low)) / (high - low);
      }
      out[4 * i + 3] = 255;
    }
  });
}

const colourOf = (label) => COLOURS[(label - 1) % COLOURS.length];

function maskSheet(labels, edgeOnly) {
  const [, height, width] = image.shape;
  return sheet(width, height, (out) => {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const i = y * width + x, label = labels[i];
        if (!label) continue;
        const inside = x && y && x < width - 1 && y < height - 1 && labels[i - 1] === label &&
          labels[i + 1] === label && labels[i - width] === label && labels[i + width] === label;
        if (edgeOnly && inside) continue;
        out.set([...colourOf(label), 255], 4 * i);
      }
    }
  });
}

const layersNow = () => (page.clicks ? ["with"] : image.layers.filter((name) => $(`layer_${name}`).checked));

function draw() {
  if (!image) return;
  const slice = fetched.get(z);
  for (const [canvas, masks, clicked] of [
    [$("main"), layersNow(), true], ...($("second").hidden ? [] : [[$("without"), ["without"], false]]),
  ]) {
    const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
    if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    if (!slice) continue;
    context.save();
    context.translate(view.x, view.y);
    context.scale(view.scale, view.scale * aspect());
    context.imageSmoothingEnabled = view.scale < 3;
    slice.picture ??= pictureOf(slice.values);
    context.drawImage(slice.picture, 0, 0);
    context.imageSmoothingEnabled = false;
    for (const name of masks) {
      if (!slice.masks[name] || !shown) continue;
      const edge = $("contour").checked || name === "reference";
      const key = `${name} ${edge}`;
      slice.sheets[key] ??= maskSheet(slice.masks[name], edge);
      context.globalAlpha = edge ? 1 : $("opacity").value / 100;
      context.drawImage(slice.sheets[key], 0, 0);
    }
    context.restore();
    if (clicked) drawPrompts(context);
  }
}

const aspect = () => (image.spacing ? image.spacing[1] / image.spacing[2] : 1);
const toScreen = (x, y) => [view.x + (x + 0.5) * view.scale, view.y + (y + 0.5) * view.scale * aspect()];
const toImage = (x, y) => [(x - view.x) / view.scale - 0.5, (y - view.y) / view.scale / aspect() - 0.5];

function drawPrompts(context) {
  context.lineWidth = 2;
  const mark = (path, colour) => {
    for (const [style, width] of [["#000", 4], [colour, 2]]) {
      Object.assign(context, { strokeStyle: style, lineWidth: width });
      context.beginPath();
      path();
      context.stroke();
    }
  };
  for (const prompt of prompts) {
    const place = prompt.point ?? prompt.box, depth = page.picture ? 0 : place.at(-1);
    if (depth !== z) continue;
    const colour = `rgb(${colourOf(page.classes.indexOf(prompt.class ?? page.classes[0]) + 1)})`;
    if (prompt.box) {
      const [x0, y0] = toScreen(place[0], place[1]), [x1, y1] = toScreen(place[2], place[3]);
      mark(() => context.rect(x0, y0, x1 - x0, y1 - y0), colour);
    } else {
      const [x, y] = toScreen(place[0], place[1]);
      mark(() => {
        context.arc(x, y, 6, 0, 7);
        context.moveTo(x - 3, y); context.lineTo(x + 3, y);
        if (prompt.foreground !== false) { context.moveTo(x, y - 3); context.lineTo(x, y + 3); }
      }, prompt.foreground === false ? "#fff" : colour);
    }
  }
  if (dragged?.kind === "box" && dragged.moved) {
    const [x0, y0, x1, y1] = [...dragged.from, ...dragged.at];
    mark(() => context.rect(x0, y0, x1 - x0, y1 - y0), "#fff");
  }
  if (cross && document.activeElement === $("main")) {
    const [x, y] = toScreen(...cross);
    mark(() => { context.moveTo(x - 12, y); context.lineTo(x + 12, y); context.moveTo(x, y - 12); context.lineTo(x, y + 12); },
      "#fff");
    if (corner) { const [a, b] = toScreen(...corner); mark(() => context.rect(a, b, x - a, y - b), "#fff"); }
  }
}

function fit() {
  const [, height, width] = image.shape, canvas = $("main");
  view.scale = Math.min(canvas.clientWidth / width, canvas.clientHeight / (height * aspect()));
  view.x = (canvas.clientWidth - width * view.scale) / 2;
  view.y = (canvas.clientHeight - height * aspect() * view.scale) / 2;
  fitted = true;
  draw();
}

function zoom(by, x = $("main").clientWidth / 2, y = $("main").clientHeight / 2) {
  const scale = Math.min(Math.max(view.scale * by, 0.05), 60), ratio = scale / view.scale;
  view = { scale, x: x - (x - view.x) * ratio, y: y - (y - view.y) * ratio };
  fitted = false;
  draw();
}

function setGrey(low, high) {
  grey = [low, Math.max(high, low + 1e-6)];
  $("window").textContent = `${+low.toPrecision(4)} to ${+grey[1].toPrecision(4)}`;
  for (const slice of fetched.values()) slice.picture = null;
  draw();
}

/* ---- cases and slices ---- */

async function open(number) {
  if (!(number >= 0 && number < page.cases.length)) return;
  if (!saved && !(await save())) { $("cases").value = image.case; return; }
  await run("reading the image", async () => {
    try {
      image = await ask("open", { case: number });
    } finally {
      if (image) $("cases").value = image.case;
    }
    [prompts, past, saved, fetched, cross, corner] = [image.prompts, [], true, new Map(), null, null];
    $("slices").hidden = image.shape[0] === 1;
    Object.assign($("slice"), { max: image.shape[0] - 1 });
    for (const element of document.querySelectorAll(".grey")) element.hidden = image.colour;
    $("preset").value = "image";
    setGrey(...(image.bytes && image.spacing === null ? [0, 255] : image.range));
    listObjects();
    await go(image.slice);
    fit();
    return page.clicks && !prompts.length && page.needs_prompts ? "This model needs a click or a box." : "";
  });
}

async function go(to) {
  z = Math.min(Math.max(to, 0), image.shape[0] - 1);
  $("slice").value = z;
  $("slice_number").textContent = `${z + 1} of ${image.shape[0]}`;
  const at = { case: image.case, z }, mine = fetched;
  if (!mine.has(z)) {
    const bytes = await ask("pixels", at, true);
    if (mine.size > 60) mine.clear();
    mine.set(at.z, { values: image.bytes ? new Uint8Array(bytes) : new Float32Array(bytes), masks: {}, sheets: {} });
  }
  draw();
  await masks(at, mine);
}

/** Fetch what lies over a slice; an answer that comes after another click is not shown. */
async function masks(at, mine) {
  const slice = mine.get(at.z), serial = ++request;
  if (!slice) return;
  const put = (name, bytes) => {
    if (serial !== request && page.clicks && name === "with") return;
    slice.masks[name] = new Uint16Array(bytes);
    slice.sheets = {};
    draw();
    areas();
  };
  if (!page.clicks) {
    for (const name of image.layers) if (!slice.masks[name]) put(name, await ask("layer", { ...at, layer: name }, true));
    areas();
    return;
  }
  const here = prompts.some((p) => page.picture || (p.point ?? p.box).at(-1) === at.z);
  if (page.needs_prompts && !here) put("with", new ArrayBuffer(2 * image.shape[1] * image.shape[2]));
  else put("with", await ask("mask", { ...at, prompts, prompted: true }, true));
  if (!$("second").hidden && !slice.masks.without)
    put("without", await ask("mask", { ...at, prompts, prompted: false }, true));
}

function areas() {
  const slice = fetched.get(z), list = [], [, dy, dx] = image.spacing ?? [0, 0, 0];
  for (const name of slice ? layersNow() : []) {
    const counts = new Map();
    for (const label of slice.masks[name] ?? []) if (label) counts.set(label, (counts.get(label) ?? 0) + 1);
    for (const [label, n] of [...counts].sort((a, b) => a[0] - b[0])) {
      const size = image.spacing ? `${(n * dy * dx).toFixed(1)} mm²` : `${n} pixels`;
      list.push([label, `${page.labels[label] ?? `label ${label}`}${page.clicks ? "" : `, ${name}`}: ${size}`]);
    }
  }
  $("areas").replaceChildren(...list.map(([label, text]) => {
    const item = document.createElement("li"), spot = document.createElement("canvas");
    Object.assign(spot, { width: 12, height: 12 });
    spot.setAttribute("aria-hidden", "true");
    Object.assign(spot.style, { flex: "none", width: "12px", height: "12px" });
    const context = spot.getContext("2d");
    context.fillStyle = `rgb(${colourOf(label)})`;
    context.fillRect(0, 0, 12, 12);
    item.append(spot, text);
    return item;
  }));
  $("caption").textContent = page.clicks ? `with ${prompts.length} prompt${prompts.length === 1 ? "" : "s"}` : "";
}

/* ---- clicks ---- */

async function change(next, undo = false) {
  const before = [prompts, saved];
  if (!undo) past.push(prompts);
  [prompts, saved] = [next, false];
  listObjects();
  draw();
  await run("segmenting", async () => {
    try {
      await masks({ case: image.case, z }, fetched);
      for (const [k, slice] of fetched) if (k !== z) delete slice.masks.with;
    } catch (error) {
      if (prompts === next) { [prompts, saved] = before; past.pop(); listObjects(); draw(); }
      throw error;
    }
    return "";
  });
}

function add(kind, place, more = {}) {
  const [, height, width] = image.shape, limits = [width, height, width, height];
  const inside = place.map((v, i) => Math.round(100 * Math.min(Math.max(v, 0), limits[i] - 1)) / 100);
  const number = +$("object").value;
  return change([...prompts, {
    [kind]: page.picture ? inside : [...inside, z], ...more, class: $("class").value, ...(number > 1 ? { object: number } : {}),
  }]);
}

function addBox([x0, y0], [x1, y1]) {
  return add("box", [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)]);
}

const undo = () => past.length && change(past.pop(), true);

function listObjects(chosen = +$("object").value || 1) {
  const most = Math.max(1, chosen, ...prompts.map((p) => p.object ?? 1));
  $("object").replaceChildren(...Array.from({ length: most }, (_, i) => new Option(i + 1, i + 1)));
  $("object").value = chosen;
  $("undo").disabled = !past.length;
  $("reset").disabled = !prompts.length;
}

async function save() {
  await run("saving", async () => {
    const { file } = await ask("save", { case: image.case, prompts });
    saved = page.cases[image.case].saved = true;
    listCases();
    return `saved as ${file}`;
  });
  return saved;
}

function listCases() {
  const chosen = $("cases").value;
  $("cases").replaceChildren(...page.cases.map((c, i) => new Option(`${c.saved ? "✓ " : ""}${c.name}`, i)));
  if (chosen !== "") $("cases").value = chosen;
}

/* ---- mouse, touch and keys ---- */

const tool = () => document.querySelector("[name=tool]:checked").value;

function pointer(canvas) {
  const at = (e) => { const r = canvas.getBoundingClientRect(); return [e.clientX - r.left, e.clientY - r.top]; };
  canvas.addEventListener("contextmenu", (e) => e.preventDefault());
  canvas.addEventListener("wheel", (e) => { e.preventDefault(); zoom(Math.exp(-e.deltaY / 400), ...at(e)); }, { passive: false });
  canvas.addEventListener("pointerdown", (e) => {
    if (!image || canvas.id === "without" && e.button !== 1 && !e.shiftKey) return;
    canvas.setPointerCapture(e.pointerId);
    let kind = tool();
    if (e.shiftKey || e.button === 1 || !page.clicks && kind !== "window") kind = "move";
    if (e.ctrlKey && !image.colour) kind = "window";
    else if (kind !== "move" && kind !== "window" && (e.button === 2 || e.altKey)) kind = "background";
    else if (kind === "object") kind = "point or box";
    dragged = { kind, from: at(e), at: at(e), view: { ...view }, grey: [...grey], moved: false };
  });
  canvas.addEventListener("pointermove", (e) => {
    if (!dragged) return;
    dragged.at = at(e);
    const [dx, dy] = [0, 1].map((i) => dragged.at[i] - dragged.from[i]);
    if (Math.hypot(dx, dy) > 5) dragged.moved = true;
    if (dragged.moved && dragged.kind === "point or box") dragged.kind = "box";
    if (dragged.kind === "move") { view = { ...view, x: dragged.view.x + dx, y: dragged.view.y + dy }; fitted = false; }
    if (dragged.kind === "window") {
      const [low, high] = dragged.grey, width = (high - low) * Math.exp(dx / 200), centre = (low + high) / 2 - (dy * (high - low)) / 300;
      setGrey(centre - width / 2, centre + width / 2);
    } else draw();
  });
  canvas.addEventListener("pointerup", () => {
    const done = dragged;
    dragged = null;
    if (!done) return;
    const [from, to] = [toImage(...done.from), toImage(...done.at)], [, height, width] = image.shape;
    const inside = from[0] > -0.5 && from[1] > -0.5 && from[0] < width - 0.5 && from[1] < height - 0.5;
    if (done.kind === "box" && done.moved) addBox(from, to);
    else if (inside && done.kind === "point or box") add("point", from, { foreground: true });
    else if (inside && done.kind === "background") add("point", from, { foreground: false });
    draw();
  });
  canvas.addEventListener("pointercancel", () => { dragged = null; draw(); });
}

function keys(e) {
  if (!image || e.ctrlKey && e.key !== "z" || e.metaKey || e.altKey) return;
  const field = e.target.closest("select, input:not([type=checkbox]):not([type=radio])");
  const onCanvas = e.target === $("main"), key = e.key.length === 1 ? e.key.toLowerCase() : e.key;
  const arrow = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
  const [, height, width] = image.shape;
  if (onCanvas && page.clicks && arrow) {
    const step = e.shiftKey ? 10 : 1, limits = [width - 1, height - 1];
    cross = (cross ?? [Math.floor(width / 2), Math.floor(height / 2)])
      .map((v, i) => Math.min(Math.max(v + step * arrow[i], 0), limits[i]));
    draw();
  } else if (onCanvas && page.clicks && cross && key === "Enter") add("point", cross, { foreground: true });
  else if (onCanvas && page.clicks && cross && key === "b") add("point", cross, { foreground: false });
  else if (onCanvas && page.clicks && cross && key === "x") {
    if (!corner) corner = [...cross];
    else { const first = corner; corner = null; addBox(first, cross); }
    draw();
  } else if (field) return;
  else if (key === "n") open(image.case + 1);
  else if (key === "p") open(image.case - 1);
  else if (key === "PageUp" || key === "PageDown") run("reading", () => go(z + (key === "PageUp" ? 1 : -1)));
  else if (key === "+" || key === "=") zoom(1.25);
  else if (key === "-") zoom(0.8);
  else if (key === "0") fit();
  else if (key === "c") $("contour").click();
  else if (key === "o") { shown = !shown; draw(); }
  else if (page.clicks && (key === "u" || e.ctrlKey && key === "z")) undo();
  else if (page.clicks && key === "s") save();
  else if (page.clicks && key === "a") $("another").click();
  else if (page.clicks && key === "v") $("compare").click();
  else if (page.clicks && key >= "1" && key <= "9" && page.classes[key - 1]) $("class").value = page.classes[key - 1];
  else return;
  e.preventDefault();
}

async function start() {
  page = await ask("state");
  $("mode").textContent = page.clicks ? "click" : "show";
  for (const element of document.querySelectorAll(".clicks")) element.hidden = !page.clicks;
  $("where").textContent = page.out ? `Masks are saved in ${page.out}.` : "";
  $("class").replaceChildren(...page.classes.map((name) => new Option(name, name)));
  $("compare").closest("label").hidden = page.needs_prompts;
  $("preset").replaceChildren(...["image", "full range", ...Object.keys(PRESETS)].map((name) => new Option(name, name)));
  for (const name of page.layers) {
    const label = document.createElement("label"), box = document.createElement("input");
    Object.assign(box, { type: "checkbox", id: `layer_${name}`, checked: true });
    box.addEventListener("change", () => { draw(); areas(); });
    label.append(box, ` ${name}${name === "reference" ? " (contour)" : ""} `);
    $("layers").append(label);
  }
  listCases();
  pointer($("main"));
  pointer($("without"));
  addEventListener("keydown", keys);
  addEventListener("resize", () => image && (fitted ? fit() : draw()));
  addEventListener("beforeunload", (e) => { if (!saved) e.preventDefault(); });
  $("main").addEventListener("focus", draw);
  $("main").addEventListener("blur", draw);
  $("cases").addEventListener("change", () => open(+$("cases").value));
  $("slice").addEventListener("input", () => run("reading", () => go(+$("slice").value)));
  for (const id of ["opacity", "contour"]) $(id).addEventListener("input", draw);
  $("preset").addEventListener("change", () => {
    const [width, level] = PRESETS[$("preset").value] ?? [];
    if (width) setGrey(level - width / 2, level + width / 2);
    else setGrey(...($("preset").value === "image" ? image.range : image.limits));
  });
  $("compare").addEventListener("change", () => {
    $("second").hidden = !$("compare").checked;
    fit();
    run("segmenting", () => masks({ case: image.case, z }, fetched));
  });
  const actions = {
    previous: () => open(image.case - 1), next: () => open(image.case + 1), undo, save, fit, reset: () => change([]),
    another: () => listObjects($("object").options.length + 1), closer: () => zoom(1.25), farther: () => zoom(0.8),
  };
  for (const [id, action] of Object.entries(actions)) $(id).addEventListener("click", () => image && action());
  const first = page.cases.findIndex((c) => !c.saved);
  await open(page.clicks && first > 0 ? first : 0);
}

start().catch((error) => say(error.message, true));
