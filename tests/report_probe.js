// Runs inside a report, after it: what overflows, what cannot be read, what failed, and whether the script works.
(async () => {
  const wait = ms => new Promise(done => setTimeout(done, ms));
  await wait(100);
  const name = e => `${e.tagName.toLowerCase()}${e.id ? "#" + e.id : ""}.${e.getAttribute("class") || ""}: ${e.textContent.trim().slice(0, 40)}`;
  const result = { errors: window.failures, width: innerWidth, dark: matchMedia("(prefers-color-scheme: dark)").matches };
  document.querySelectorAll("details").forEach(d => { d.open = true; });
  await wait(100);

  const box = document.scrollingElement;
  result.overflow = box.scrollWidth - box.clientWidth;
  const scrolls = e => e.closest(".scroll, pre, .toc, .sr, .skip, figcaption, [hidden]");
  result.outside = [...document.body.querySelectorAll("*")].filter(e => {
    const r = e.getBoundingClientRect();
    return r.width && (r.right > box.clientWidth + 1 || r.left < -1) && !scrolls(e);
  }).map(name);
  result.clipped = [...document.querySelectorAll("svg.figure text")].filter(e => {
    const own = e.getBoundingClientRect(), all = e.closest("svg").getBoundingClientRect();
    return own.right > all.right + 3 || own.left < all.left - 3 || own.bottom > all.bottom + 3 || own.top < all.top - 3;
  }).map(name);
  result.images = [...document.querySelectorAll("image")].map(e => e.getBoundingClientRect().width * e.getBoundingClientRect().height);
  result.loads = performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith("data:"));

  const rgba = text => {
    const v = text.match(/[\d.]+/g).map(Number);
    return v.length < 4 ? [...v.slice(0, 3), 1] : v;
  };
  const over = (top, below) => top.slice(0, 3).map((v, i) => v * top[3] + below[i] * (1 - top[3]));
  const behind = e => {
    const layers = [];
    for (let n = e; n; n = n.parentElement) layers.push(rgba(getComputedStyle(n).backgroundColor));
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const light = c => c.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4).reduce((s, v, i) => s + v * [.2126, .7152, .0722][i], 0);
  const contrast = (a, b) => (Math.max(light(a), light(b)) + .05) / (Math.min(light(a), light(b)) + .05);
  const speaks = e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  result.faint = [...document.body.querySelectorAll("main *:not(option), nav *")].filter(e => {
    if (!speaks(e) || !e.getClientRects().length || e.closest(".picture svg") || e.matches(".inside, script, style, .sr")) return false;
    const style = getComputedStyle(e), below = behind(e);
    const ink = rgba(e.ownerSVGElement ? style.fill : style.color);
    return contrast(over(ink, below), below) < 4.5;
  }).map(name);

  // what is seen below each heading, up to the next one
  const seen = [...document.querySelectorAll("main h1, main h2, main h3, main h4, main p, main td, main li, main svg, main pre, main dd")].filter(e => e.getClientRects().length);
  const heading = e => /^H[1-4]$/.test(e.tagName);
  result.headings = seen.flatMap((e, i) => heading(e) ? [[name(e), i + 1 < seen.length && (!heading(seen[i + 1]) || seen[i + 1].tagName > e.tagName)]] : []);

  const table = document.getElementById("case-table");
  if (table) {
    const rows = () => [...table.tBodies[0].rows].map(r => [...r.cells].map(c => c.textContent));
    const set = (id, value, event) => { const e = document.getElementById(id); e.value = value; e.dispatchEvent(new Event(event)); };
    result.rows = rows();
    table.tHead.querySelector("[data-column='2']").click();
    result.ascending = rows().map(r => r[2]);
    table.tHead.querySelector("[data-column='2']").click();
    result.descending = rows().map(r => r[2]);
    result.sorted = table.tHead.querySelector("[aria-sort]").getAttribute("aria-sort");
    set("case-filter", "NORMAL", "input");
    result.filtered = rows().map(r => r[0]);
    set("case-filter", "", "input");
    set("case-metric", "hd95", "change");
    result.hd95 = Object.fromEntries(rows().map(r => [r[0], r[2]]));
  }
  // point at the centre of every dot, as a pointer does: whatever lies on top gets the event
  const point = (x, y) => document.elementFromPoint(x, y)?.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, clientX: x, clientY: y }));
  const tip = document.getElementById("tip");
  result.dots = [];
  document.querySelectorAll("svg[data-k]").forEach(figure => {
    figure.scrollIntoView({ block: "center", behavior: "instant" });
    figure.querySelectorAll("circle[data-c]").forEach(dot => {
      const r = dot.getBoundingClientRect();
      point(0, 0);
      point(r.left + r.width / 2, r.top + r.height / 2);
      result.dots.push({ ...figure.dataset, c: Number(dot.dataset.c), m: Number(dot.parentNode.dataset.m), tip: tip.hidden ? "" : tip.textContent });
      result.hot = Math.max(result.hot || 0, new Set([...document.querySelectorAll(".hot")].map(e => e.closest("svg"))).size);
    });
  });
  (parent === window ? x => { document.documentElement.dataset.result = x; } : x => parent.postMessage(x, "*"))(JSON.stringify(result));
})();
