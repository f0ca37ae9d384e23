// Draws the chart and keeps chart and table in step: the filters hide points in both, pointing at one marks the other.
(async () => {
  const charts = [];
  for (const id of ["chart", "depth"]) {
    const data = document.getElementById(`${id}-data`);
    if (!data) continue;
    const specification = JSON.parse(data.textContent);
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
