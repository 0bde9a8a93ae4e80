"use strict";
(() => {
  const source = document.getElementById("case-data");
  const data = source ? JSON.parse(source.textContent) : null;
  const tip = document.getElementById("tip");

  const digits = value => Math.abs(value) >= 1000 || Number.isInteger(value) && Math.abs(value) > 1 ? 0 : Math.abs(value) >= 10 ? 1 : 3;
  const text = value => value === null ? "n/a" : typeof value === "string" ? value : value.toFixed(digits(value));

  // one case in every figure: that of the mark nearest to the pointer, so that none is out of reach below another one
  const REACH = 9; // in the figure's units, of which it is 420 wide
  const places = new WeakMap();
  const marks = figure => {
    if (!places.has(figure)) {
      const dots = [...figure.querySelectorAll("circle[data-c]")].map(e => ({ c: e.dataset.c, m: e.parentNode.dataset.m, x: +e.getAttribute("cx"), y: +e.getAttribute("cy") }));
      const ends = [...figure.querySelectorAll("path[data-c]")].flatMap(e => [...e.getAttribute("d").matchAll(/[ML](\S+?) ([^ML]+)/g)].map(p => ({ c: e.dataset.c, x: +p[1], y: +p[2] })));
      places.set(figure, [...dots, ...ends]);
    }
    return places.get(figure);
  };
  const nearest = (figure, x, y) => {
    const p = new DOMPoint(x, y).matrixTransform(figure.getScreenCTM().inverse());
    const away = mark => Math.hypot(mark.x - p.x, mark.y - p.y);
    const first = marks(figure).reduce((best, mark) => !best || away(mark) < away(best) ? mark : best, null);
    return first && away(first) < REACH ? marks(figure).filter(mark => mark.x === first.x && mark.y === first.y) : [];
  };
  const said = (figure, mark) => {
    const { s, k, size } = figure.dataset, own = data.structures[s], values = own.metrics[k][mark.c];
    const models = mark.m === undefined ? values.map((_, m) => m) : [mark.m];
    const parts = models.map(m => `${values.length > 1 ? `${data.letters[m]} ` : ""}${text(values[m])}`);
    return `${data.cases[mark.c]}: ${own.labels[k]} ${parts.join(", ")}${size === undefined ? "" : `, ${text(own.size[mark.c])} ${data.unit}`}`;
  };
  let shown = "";
  const show = e => {
    const figure = e.target.closest && e.target.closest("svg[data-k]");
    const line = figure && e.target.closest("[data-c]");
    let found = figure && data ? nearest(figure, e.clientX, e.clientY) : [];
    if (!found.length && line) found = [{ c: line.dataset.c }];
    const cases = [...new Set(found.map(mark => mark.c))];
    if (cases.join() !== shown) {
      document.querySelectorAll(".hot").forEach(own => own.classList.remove("hot"));
      cases.forEach(c => document.querySelectorAll(`[data-c="${c}"]`).forEach(own => own.classList.add("hot")));
      shown = cases.join();
    }
    tip.hidden = !found.length;
    if (tip.hidden) return;
    tip.textContent = [...new Set(found.map(mark => said(figure, mark)))].join("\n");
    tip.style.left = `${Math.max(4, Math.min(e.clientX + 12, innerWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${Math.max(4, e.clientY - tip.offsetHeight - 10)}px`;
  };
  document.addEventListener("pointermove", show);
  document.addEventListener("pointerdown", show);

  // what is wider than its place says so
  const widths = () => document.querySelectorAll(".scroll").forEach(e => e.classList.toggle("wide", e.scrollWidth > e.clientWidth + 1));
  addEventListener("resize", widths);
  document.addEventListener("toggle", widths, true);
  widths();

  // copy buttons
  document.querySelectorAll(".copy").forEach(button => button.addEventListener("click", () => {
    const code = button.parentElement.querySelector("code");
    const done = () => { button.textContent = "Copied"; setTimeout(() => { button.textContent = "Copy"; }, 1500); };
    const select = () => { getSelection().selectAllChildren(code); if (document.execCommand("copy")) done(); };
    if (navigator.clipboard) navigator.clipboard.writeText(code.textContent).then(done, select); else select();
  }));

  // paper shows what is folded
  addEventListener("beforeprint", () => document.querySelectorAll("details:not([open])").forEach(d => { d.open = true; d.dataset.closed = ""; }));
  addEventListener("afterprint", () => document.querySelectorAll("details[data-closed]").forEach(d => { d.open = false; delete d.dataset.closed; }));

  // the table of cases
  if (!data) return;
  const [table, filter, structure, metric] = ["case-table", "case-filter", "case-structure", "case-metric"].map(id => document.getElementById(id));
  let column = 0, direction = 1;
  const order = (a, b) => {
    const [x, y] = [a[column], b[column]];
    if (x === null || y === null) return (x === null) - (y === null); // undefined last, either way
    return direction * (typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y);
  };
  const draw = () => {
    const own = data.structures[structure.value], values = own.metrics[metric.value], wanted = filter.value.toLowerCase();
    const rows = data.cases.map((name, i) => [name, own.size[i], ...values[i]]).filter(r => r[0].toLowerCase().includes(wanted));
    table.tBodies[0].replaceChildren(...rows.sort(order).map(row => {
      const line = document.createElement("tr");
      line.append(...row.map((value, i) => {
        const cell = document.createElement(i ? "td" : "th");
        if (!i) cell.scope = "row";
        cell.textContent = text(value);
        return cell;
      }));
      return line;
    }));
  };
  const offer = () => {
    const kept = metric.value, labels = data.structures[structure.value].labels;
    metric.replaceChildren(...Object.entries(labels).map(([key, label]) => new Option(label, key)));
    if (kept in labels) metric.value = kept;
    draw();
  };
  table.tHead.addEventListener("click", e => {
    const button = e.target.closest("button");
    if (!button) return;
    const next = Number(button.dataset.column);
    direction = next === column ? -direction : 1;
    column = next;
    table.tHead.querySelectorAll("th").forEach(th => th.removeAttribute("aria-sort"));
    button.parentElement.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
    draw();
  });
  filter.addEventListener("input", draw);
  metric.addEventListener("change", draw);
  structure.addEventListener("change", offer);
  offer();
})();
