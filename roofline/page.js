// Draws the charts and keeps charts and tables in step: the filters hide points in both, pointing at one marks the other.
for (const map of document.querySelectorAll(".map")) {
  const slider = map.querySelector("input[type=range]");
  const lengths = [...map.querySelectorAll(".length")];
  const show = () => {
    lengths.forEach((length, index) => { length.hidden = index !== Number(slider.value); });
    const steps = lengths[slider.value].dataset.steps;
    map.querySelector("output").textContent = steps;
    slider.setAttribute("aria-valuetext", steps);
  };
  slider.addEventListener("input", show);
  map.querySelector(".slider").hidden = false;
  show(); // a reloaded page may remember where the slider stood
}

// The library and the drawings travel compressed.
async function unpacked(element) {
  const packed = Uint8Array.from(atob(element.textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

// What comes out of the library runs because its hash stands in the policy of the page.
async function run() {
  const script = document.createElement("script");
  script.textContent = await unpacked(document.getElementById("library"));
  document.head.append(script);
}

(async () => {
  const charts = [];
  if (typeof DecompressionStream === "function") await run();
  else document.getElementById("undrawn").hidden = false;
  for (const id of typeof vegaEmbed === "function" ? ["chart", "depth"] : []) {
    const data = document.getElementById(`${id}-data`);
    if (!data) continue;
    const specification = JSON.parse(await unpacked(data));
    const { view } = await vegaEmbed(`#${id}`, specification, {
      ast: true, // expressions are interpreted, so the page needs no permission to evaluate code
      expr: expressionInterpreter,
      renderer: "svg",
      actions: false,
      defaultStyle: false,
      tooltip: { disableDefaultStyle: true },
    });
    const labels = specification.layer.find((layer) => layer.name.endsWith("labels") && layer.name !== "roof_labels");
    charts.push({ view, labels: labels.data.values });
  }
  const rows = [...document.querySelectorAll("tr.point")];
  const boxes = [...document.querySelectorAll(".filters input")];

  function filter() {
    const off = new Set(boxes.filter((box) => !box.checked).map((box) => box.value));
    const hidden = new Set();
    for (const row of rows) {
      row.hidden = row.dataset.facets.split(" ").some((facet) => off.has(facet));
      if (row.nextElementSibling?.className === "gap") row.nextElementSibling.hidden = row.hidden;
      if (row.hidden && row.dataset.number) hidden.add(row.dataset.number);
    }
    for (const body of document.querySelectorAll("tbody.section")) {
      body.hidden = [...body.querySelectorAll("tr.point")].every((row) => row.hidden);
    }
    for (const { view, labels } of charts) {
      const silent = labels.filter((label) => label.members.every((number) => hidden.has(number)));
      view.signal("hidden", [...hidden]).signal("silent", silent.map((label) => label.text)).runAsync();
    }
  }

  function focus(number) {
    for (const row of rows) row.classList.toggle("focus", number !== "" && row.dataset.number === number);
    for (const { view } of charts) view.signal("focus", number).runAsync();
  }

  for (const box of boxes) box.addEventListener("change", filter);
  for (const row of rows) {
    row.addEventListener("mouseenter", () => focus(row.dataset.number));
    row.addEventListener("mouseleave", () => focus(""));
  }
  for (const { view } of charts) view.addEventListener("mouseover", (_, item) => focus(item?.datum?.number ?? ""));
  filter(); // a reloaded page may remember boxes that were unticked
  document.getElementById("chart").dataset.ready = "yes";
})();
