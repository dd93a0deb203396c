// Sorting, hiding and drawing. Runs in the bundle of Vega-Embed, whose `vegaEmbed` it calls; loads nothing.

// Vega's own reader of CSV makes code of the headings, which the page's policy forbids. Cells have no line breaks, and an
// apostrophe before what looks like a formula is for spreadsheets alone (bench/formats/escaping.py).
const rowsOf = (csv) => {
  const cellsOf = (line) => [...`,${line}`.matchAll(/,(?:"((?:[^"]|"")*)"|([^,]*))/g)].map(([, quoted, plain]) =>
    (quoted?.replaceAll('""', '"') ?? plain).replace(/(^|;)'(?=\s*[-=+@＝＋－＠].)/g, "$1"));
  const [names, ...rows] = csv.replace(/\n$/, "").split("\n").map(cellsOf);
  return rows.map((cells) => Object.fromEntries(names.map((name, column) => [name, cells[column]])));
};

const withRows = (spec) => ({
  ...spec,
  data: { ...spec.data, format: { ...spec.data.format, type: "json" } },
  datasets: Object.fromEntries(Object.entries(spec.datasets).map(([name, csv]) => [name, rowsOf(csv)])),
});

// A column sorts by numbers where its cells have them, else by text; a second click turns it round.
for (const button of document.querySelectorAll("table.sortable th button")) {
  button.addEventListener("click", () => {
    const heading = button.parentElement;
    const table = heading.closest("table");
    const column = heading.cellIndex;
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows];
    const value = (row) => row.cells[column].dataset.value;
    const compared = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === undefined && y === undefined) {
        return a.cells[column].textContent.localeCompare(b.cells[column].textContent);
      }
      // What has no number comes last, either way.
      if (x === undefined || y === undefined) return (x === undefined ? 1 : -1) * (down ? -1 : 1);
      return Number(x) - Number(y);
    };
    rows.sort((a, b) => (down ? -1 : 1) * compared(a, b));
    table.tBodies[0].append(...rows);
  });
}

// A table that is wider than its place says so.
const widths = new ResizeObserver((entries) => {
  for (const { target } of entries) target.previousElementSibling.hidden = target.scrollWidth <= target.clientWidth;
});
document.querySelectorAll(".scroll").forEach((home) => widths.observe(home));

const packed = Uint8Array.from(atob(document.getElementById("figures").textContent), (c) => c.charCodeAt(0));
const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
const figures = JSON.parse(await new Response(unpacked).text());
const views = new Map();

// A figure shows what the boxes say, also those that were clicked, or restored by the browser, before it was drawn.
const hide = (plot) => {
  const part = plot.closest("[data-part]").dataset.part;
  const boxes = document.querySelectorAll(`fieldset[data-part="${part}"] input:not(:checked)`);
  return views.get(plot.dataset.figure)?.signal("hidden", [...boxes].map((box) => box.value)).runAsync();
};

for (const fieldset of document.querySelectorAll("fieldset[data-part]")) {
  fieldset.addEventListener("change", () => {
    document.querySelectorAll(`[data-part="${fieldset.dataset.part}"] .plot`).forEach(hide);
  });
}

for (const button of document.querySelectorAll("button.download")) {
  button.addEventListener("click", () => {
    const link = document.createElement("a");
    link.download = `${button.dataset.figure}.csv`;
    link.href = URL.createObjectURL(new Blob(Object.values(figures[button.dataset.figure].datasets), { type: "text/csv" }));
    link.click();
    URL.revokeObjectURL(link.href);
  });
}

// Expressions are interpreted (ast), not compiled.
const draw = async (plot) => {
  const name = plot.dataset.figure;
  try {
    const result = await vegaEmbed(plot, withRows(figures[name]), { renderer: "svg", actions: false, ast: true });
    views.set(name, result.view);
    await hide(plot);
    plot.dataset.drawn = "yes";
  } catch (error) {
    plot.textContent = `This figure could not be drawn: ${error.message}`;
    plot.dataset.drawn = "no";
  }
};

// One figure after another, with a breath in between, so that the page can be read and used meanwhile. What is folded up
// has no width yet: it is drawn when it is opened.
for (const plot of document.querySelectorAll(".plot")) {
  if (plot.closest("details:not([open])")) continue;
  await draw(plot);
  await new Promise((resume) => setTimeout(resume));
}
for (const folded of document.querySelectorAll("details.more")) {
  const drawIn = () => folded.open && folded.querySelectorAll(".plot:not([data-drawn])").forEach(draw);
  folded.addEventListener("toggle", drawIn);
  drawIn();
}
