// Theme, tables, charts, cells. What is packed in the page is unpacked when it is needed; nothing is fetched.
const by = (id) => document.getElementById(id);
const root = document.documentElement;
const index = JSON.parse(by("index").textContent);

const unpack = async (id) => {
  const bytes = Uint8Array.from(atob(by(id).textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
};

const once = (make) => {
  const made = new Map();
  return (id) => made.get(id) ?? made.set(id, make(id)).get(id);
};

const library = once(async (id) => {
  const address = URL.createObjectURL(new Blob([await unpack(id)], { type: "text/javascript" }));
  try {
    return await import(address);
  } finally {
    URL.revokeObjectURL(address);
  }
});
const figures = once(async () => JSON.parse(await unpack("figures")));
const chunk = once(async (number) => JSON.parse(await unpack(`chunk-${number}`)));

// Theme: the system's, until the reader chooses.
const system = matchMedia("(prefers-color-scheme: dark)");
let chosen = null;
const isDark = () => root.dataset.theme === "dark";
const setTheme = () => {
  root.dataset.theme = chosen ?? (system.matches ? "dark" : "light");
  root.classList.toggle("dark", isDark()); // where DataTables looks
  by("theme").textContent = isDark() ? "Light" : "Dark";
  by("theme").setAttribute("aria-label", `Switch to the ${isDark() ? "light" : "dark"} theme`);
};

// Charts: drawn when they come into view, again when the theme or the room for them changes.
const drawn = new Map();
let cellFigures = {};
const fitted = (spec, room) => {
  const narrow = room < 560;
  const seen = JSON.parse(JSON.stringify(spec), (key, value) => {
    if (key === "legend" && value && narrow) value.columns = 1;
    return typeof value === "string" && isDark() ? (index.dark[value] ?? value) : value;
  });
  const panels = seen.concat ?? [seen];
  const width = Math.max(...panels.map((one) => one.width ?? 300)) + 70;
  if (seen.concat) seen.columns = Math.max(1, Math.min(seen.columns ?? 1, Math.floor(room / width)));
  for (const one of panels) if (one.width) one.width = Math.min(one.width, Math.max(160, room - 74));
  return seen;
};
const draw = async (box) => {
  const name = box.dataset.chart;
  const state = `${isDark()} ${Math.round(box.clientWidth / 40)}`;
  if (drawn.get(box) === state) return;
  drawn.set(box, state);
  await library("vega");
  const spec = cellFigures[name] ?? (await figures())[name];
  if (!box.isConnected || !spec) return; // another cell has been opened meanwhile
  const options = { renderer: "svg", actions: false, ast: true, tooltip: { theme: isDark() ? "dark" : "light" } };
  // The box has a name and a caption, which Vega would write over; single marks need none.
  const canvas = box.firstElementChild ?? box.appendChild(document.createElement("div"));
  canvas.setAttribute("aria-hidden", "true");
  (await window.vegaEmbed(canvas, fitted(spec, box.clientWidth), options)).view.run();
};
const watcher = new IntersectionObserver(
  (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => draw(entry.target)),
  { rootMargin: "400px" },
);
const charts = (place) => place.querySelectorAll(".chart").forEach((box) => watcher.observe(box));
const redraw = () => [...drawn.keys()].filter((box) => box.isConnected && box.clientWidth).forEach(draw);

// Tables: DataTables takes over what is there already. Its menus take HTML, so the words are escaped.
const escaped = (text) => Object.assign(document.createElement("i"), { textContent: text }).innerHTML;
const words = (node, at) => {
  const found = [...node.tBodies[0].rows].map((row) => row.cells[at].dataset.search);
  return [...new Set(found)].map((word) => ({ label: escaped(word), value: word }));
};
const boards = [];
const table = once(async (id) => {
  const [{ default: DataTable }, style] = await Promise.all([library("tables"), unpack("tables-style")]);
  if (!by("table-style")) {
    const sheet = document.createElement("style");
    sheet.id = "table-style";
    sheet.textContent = style;
    document.head.prepend(sheet);
  }
  const node = by(id);
  const outer = node.parentElement;
  const heads = [...node.querySelectorAll("thead th")];
  const board = new DataTable(node, {
    order: [],
    pageLength: 50,
    lengthMenu: [25, 50, 100, { label: "all", value: -1 }],
    autoWidth: false,
    columnDefs: heads.map((head, at) => ({
      targets: at,
      type: head.dataset.kind === "num" ? "num" : "string",
      columnControl: "listed" in head.dataset ? [[{ extend: "searchList", options: words(node, at) }]] : [],
    })),
    language: { search: "Search", lengthMenu: "Show _MENU_", info: "_START_ to _END_ of _TOTAL_", searchPlaceholder: "any word" },
  });
  // The table alone scrolls, not what is around it.
  const inner = board.table().container().querySelector(".dt-layout-table");
  for (const name of ["role", "tabindex", "aria-label"]) {
    inner.setAttribute(name, outer.getAttribute(name));
    outer.removeAttribute(name);
  }
  outer.classList.remove("scroll");
  inner.classList.add("scroll");
  for (const head of heads)
    head.querySelector(".dtcc-button")?.setAttribute("aria-label", `Filter by ${head.querySelector(".dt-column-title").textContent}`);
  boards.push(board);
  return board;
});

// Cells: one at a time, by the address.
let place = null;
const show = async (event) => {
  const route = /^#cell=(\w+)$/.exec(location.hash)?.[1];
  const article = by("cell");
  if (route === undefined || !(route in index.chunks)) {
    if (article.hidden) return;
    article.hidden = true;
    article.replaceChildren();
    by("report").hidden = false;
    document.body.classList.remove("one-cell");
    document.title = title;
    if (location.hash === place.hash || location.hash === "") {
      scrollTo(0, place.top);
      place.link.focus({ preventScroll: true });
    } else {
      by(location.hash.slice(1))?.scrollIntoView();
    }
    return;
  }
  const held = await chunk(index.chunks[route]);
  if (article.hidden) {
    const from = event ? new URL(event.oldURL).hash : "";
    place = { top: scrollY, link: document.activeElement, hash: from };
  }
  cellFigures = held.charts[route];
  article.innerHTML = index.parts.map((part) => held[part][route]).join("");
  article.hidden = false;
  by("report").hidden = true;
  document.body.classList.add("one-cell");
  document.title = `${held.title[route]} - ${title}`;
  scrollTo(0, 0);
  article.querySelector("h1").focus({ preventScroll: true });
  charts(article);
};
const title = document.title;

// Print: everything opened, every row, every chart.
const everything = () => {
  document.querySelectorAll("details").forEach((one) => (one.open = true));
  boards.forEach((board) => board.page.len(-1).draw());
};

by("theme").hidden = by("print").hidden = false;
setTheme();
system.addEventListener("change", () => (setTheme(), redraw()));
by("theme").addEventListener("click", () => {
  chosen = isDark() ? "light" : "dark";
  setTheme();
  redraw();
});
by("print").addEventListener("click", async () => {
  everything();
  await Promise.all([...document.querySelectorAll(".chart")].filter((box) => box.clientWidth).map(draw));
  print();
});
addEventListener("beforeprint", everything);
addEventListener("hashchange", show);
let waiting;
addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(redraw, 200);
});
charts(document);
document.querySelectorAll("details:has(table.board)").forEach((one) =>
  one.addEventListener("toggle", () => one.open && table(one.querySelector("table.board").id)),
);
try {
  await show();
  if (by("board")) await table("board");
} finally {
  performance.mark("ready");
  root.dataset.ready = "";
}
