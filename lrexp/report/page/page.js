"use strict";
(() => {
  const given = JSON.parse(document.getElementById("data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 760px)");
  const drawn = new Map(); // chart id -> what plotly has of it

  // Colours: `@3/0.5` is the fourth colour of the palette, half transparent.
  function color(name) {
    const [word, alpha] = name.slice(1).split("/");
    if (/^v[\d.]+$/.test(word)) return `rgba(${shade(Number(word.slice(1)))},${alpha || 1})`;
    const variable = /^\d+$/.test(word) ? `--c${word}` : `--${word}`;
    const hex = getComputedStyle(document.documentElement).getPropertyValue(variable).trim();
    if (!alpha) return hex;
    const parts = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
    return `rgba(${parts.join(",")},${alpha})`;
  }
  // Shades of viridis, without the end that would be lost on the paper.
  const SHADES = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141],
    [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]];
  function shade(share) {
    const isDark = dark.matches && !("print" in document.documentElement.dataset);
    const at = (isDark ? 0.3 + 0.7 * share : 0.92 * share) * (SHADES.length - 1);
    const i = Math.min(Math.floor(at), SHADES.length - 2);
    return SHADES[i].map((low, j) => Math.round(low + (at - i) * (SHADES[i + 1][j] - low)));
  }
  function paint() {
    document.querySelectorAll("[data-color]").forEach((box) => (box.style.color = color(box.dataset.color)));
    const stops = [0, 0.25, 0.5, 0.75, 1].map((share) => `rgb(${shade(share)})`);
    document.querySelectorAll("[data-ramp]").forEach((box) => (box.style.background = `linear-gradient(to right, ${stops})`));
  }
  function colored(value) {
    if (Array.isArray(value)) return value.map(colored);
    if (value && typeof value === "object" && !("bdata" in value)) {
      return Object.fromEntries(Object.entries(value).map(([key, inner]) =>
        [key, /color$/.test(key) && inner ? color(inner) : colored(inner)]));
    }
    return value;
  }

  // What a section shows: seeds as a band or lines, a scale, and what its legend has switched off.
  const SEEDS = { none: ["band", "loss.seed", "loss.raw"], band: ["loss.seed", "loss.raw"], lines: ["band", "loss.raw"], raw: ["band", "loss.seed"] };
  const kept = recall();
  function stateOf(section) {
    kept[section.id] ??= { seeds: section.dataset.first, scale: null, off: offAtFirst(section) };
    return kept[section.id];
  }
  function offAtFirst(section) {
    return [...section.querySelectorAll('.legend [data-by][aria-pressed="false"]')].map(sayOf);
  }
  const sayOf = (button) => `${button.dataset.by}:${button.dataset.value}`;
  function isShown(trace, state) {
    if (SEEDS[state.seeds].includes(trace.kind)) return false;
    const said = [`name:${trace.variant}`, `key:${trace.key}`, `kind:${trace.kind}`];
    return !said.some((words) => state.off.includes(words));
  }

  function layoutOf(chart, state) {
    const layout = colored(chart.layout);
    const axis = { gridcolor: color("@grid"), linecolor: color("@muted"), zeroline: false,
      tickcolor: color("@muted"), ticks: "outside", ticklen: 4, showline: true };
    for (const name of Object.keys(layout).filter((key) => /^[xy]axis/.test(key))) {
      layout[name] = { ...(layout[name].visible === false ? {} : axis), ...layout[name] };
      if (name.startsWith("y") && name !== "yaxis2") layout[name].showline = false;
      const title = layout[name].title;
      if (narrow.matches && title) layout[name].title = { text: title.text.replaceAll("<br>", " ").replaceAll("   ", "<br>") };
      if (narrow.matches && layout[name].narrow) layout[name].ticktext = layout[name].narrow;
    }
    if (state.scale && chart.scales) {
      layout.yaxis = { ...layout.yaxis, type: state.scale, range: [...chart.scales[state.scale]] };
      delete layout.yaxis.tickvals;
      delete layout.yaxis.ticktext;
    }
    return {
      ...layout,
      autosize: true,
      margin: { l: 8, r: 10, t: 10, b: 8 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: narrow.matches ? 11 : 12.5, color: color("@ink") },
      hoverlabel: { bgcolor: color("@paper"), bordercolor: color("@grid"), font: { color: color("@ink") }, align: "left" },
      hovermode: "closest",
      hoverdistance: 24,
      showlegend: false,
      dragmode: narrow.matches ? false : "zoom",
      annotations: (layout.annotations || []).map((note) => ({ ...note,
        text: note.aside && !narrow.matches ? `${note.text}  ${note.aside}` : note.text, bgcolor: note.bgcolor || "rgba(0,0,0,0)" })),
    };
  }

  function draw(box) {
    const chart = given.charts[box.id];
    const section = box.closest("[data-section]");
    const state = stateOf(section);
    const data = chart.data
      .filter((trace) => isShown(trace, state))
      .map((trace) => ({ type: "scatter", ...colored(trace), x: trace.x, y: trace.y, customdata: trace.customdata }));
    const config = { displaylogo: false, responsive: true, scrollZoom: false,
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"], displayModeBar: narrow.matches ? false : "hover" };
    drawn.set(box.id, data);
    return Plotly.react(box, data, layoutOf(chart, state), config);
  }
  // One at a time, so that the first is seen while the others are drawn.
  const waiting = [];
  let isDrawing = false;
  async function drawNext() {
    if (isDrawing) return;
    isDrawing = true;
    for (let box; (box = waiting.shift()); ) {
      await draw(box);
      await new Promise((done) => setTimeout(done));
    }
    isDrawing = false;
  }
  const redraw = (section) => section.querySelectorAll(".chart").forEach((box) => drawn.has(box.id) && draw(box));
  const redrawAll = () => paint() || document.querySelectorAll("[data-section]").forEach(redraw);

  // Controls say what is shown, also to a screen reader.
  function press(section) {
    const state = stateOf(section);
    for (const button of section.querySelectorAll("[data-seeds]")) {
      button.setAttribute("aria-pressed", button.dataset.seeds === state.seeds);
    }
    const chart = [...section.querySelectorAll(".chart")].map((box) => given.charts[box.id]).find((c) => c.scales);
    for (const button of section.querySelectorAll("[data-scale]")) {
      const scale = state.scale || chart.layout.yaxis.type;
      button.setAttribute("aria-pressed", button.dataset.scale === scale);
    }
    for (const button of section.querySelectorAll("[data-by]")) {
      button.setAttribute("aria-pressed", !state.off.includes(sayOf(button)));
    }
  }
  function listen(section) {
    section.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      const state = stateOf(section);
      const { seeds, scale, by, all } = button.dataset;
      if (seeds) state.seeds = seeds;
      else if (scale) state.scale = scale;
      else if (all) {
        const lines = [...section.querySelectorAll('[data-by="name"], [data-by="key"]')].map(sayOf);
        state.off = all === "true" ? [] : lines;
      } else if (by) {
        const said = sayOf(button);
        state.off = state.off.includes(said) ? state.off.filter((s) => s !== said) : [...state.off, said];
      } else return;
      press(section);
      redraw(section);
      remember();
    });
  }

  // What was chosen outlives a reload; a browser may refuse to keep it.
  function recall() {
    try {
      return JSON.parse(sessionStorage.getItem(location.pathname)) || {};
    } catch {
      return {};
    }
  }
  function remember() {
    try {
      sessionStorage.setItem(location.pathname, JSON.stringify(kept));
    } catch {
      /* then it is forgotten */
    }
  }

  function sortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, i) =>
      head.querySelector("button").addEventListener("click", () => {
        const order = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", order > 0 ? "ascending" : "descending");
        const value = (row) => row.cells[i].dataset.value;
        const rows = [...table.tBodies[0].rows].sort((a, b) => order * compare(value(a), value(b), order));
        table.tBodies[0].append(...rows);
      }),
    );
  }
  function compare(a, b, order) {
    if (a === "" || b === "") return order * ((a === "") - (b === "")); // nothing stands last
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, undefined, { numeric: true }) : x - y;
  }

  function start() {
    paint();
    document.querySelectorAll("[data-section]").forEach((section) => {
      press(section);
      listen(section);
    });
    document.querySelectorAll("table.sortable").forEach(sortable);
    const seen = new IntersectionObserver(
      (entries) => {
        for (const { target } of entries.filter((entry) => entry.isIntersecting)) {
          seen.unobserve(target);
          waiting.push(target);
        }
        drawNext();
      },
      { rootMargin: "200px" },
    );
    document.querySelectorAll(".chart").forEach((box) => seen.observe(box));
    dark.addEventListener("change", redrawAll);
    narrow.addEventListener("change", redrawAll);
    addEventListener("beforeprint", () => {
      document.documentElement.dataset.print = "";
      document.querySelectorAll(".chart").forEach(draw);
      document.querySelectorAll("details").forEach((box) => (box.open = true));
    });
    addEventListener("afterprint", () => {
      delete document.documentElement.dataset.print;
      redrawAll();
    });
    const isStale = Date.now() / 1000 - given.written > Math.max(300, 20 * given.reload);
    if (given.reload && isStale) document.querySelector(".stale").hidden = false;
    if (given.reload) setTimeout(() => location.reload(), 1000 * given.reload);
  }
  start();
})();
