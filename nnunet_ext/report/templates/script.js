"use strict";
(() => {
  const source = document.getElementById("case-data");
  const data = source ? JSON.parse(source.textContent) : null;
  const tip = document.getElementById("tip");

  // one case in every figure
  let shown = null;
  const show = (mark, x, y) => {
    const number = mark ? mark.dataset.c : null;
    if (number !== shown) {
      document.querySelectorAll(".hot").forEach(e => e.classList.remove("hot"));
      if (number !== null) document.querySelectorAll(`[data-c="${number}"]`).forEach(e => e.classList.add("hot"));
      shown = number;
    }
    tip.hidden = number === null || !data;
    if (tip.hidden) return;
    tip.textContent = data.cases[number];
    tip.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${Math.max(4, y - tip.offsetHeight - 10)}px`;
  };
  const over = e => show(e.target.closest ? e.target.closest("[data-c]") : null, e.clientX, e.clientY);
  document.addEventListener("pointerover", over);
  document.addEventListener("pointerdown", over);

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
  const digits = value => Math.abs(value) >= 1000 || Number.isInteger(value) && Math.abs(value) > 1 ? 0 : Math.abs(value) >= 10 ? 1 : 3;
  const text = value => value === null ? "n/a" : typeof value === "string" ? value : value.toFixed(digits(value));
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
