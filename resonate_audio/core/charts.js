
// Reading a chart: hover, touch, or the arrow keys move a cursor and say the values under it.
for (const plot of document.querySelectorAll(".plot")) {
  const spots = [...plot.querySelectorAll(".hit")];
  const cursor = plot.querySelector(".cursor");
  const reading = plot.parentElement.querySelector(".reading");
  const probe = document.createElement("input");
  Object.assign(probe, { type: "range", className: "probe", min: 0, max: spots.length - 1 });
  probe.value = spots.length - 1;
  probe.setAttribute("aria-label", "Step of: " + plot.dataset.name);

  const read = (spot) => {
    const text = spot.querySelector("title").textContent.replaceAll("\n", " · ");
    reading.textContent = text;
    probe.value = spots.indexOf(spot);
    probe.setAttribute("aria-valuetext", text);
    cursor.setAttribute("x1", spot.dataset.at);
    cursor.setAttribute("x2", spot.dataset.at);
    plot.classList.add("read");
  };
  for (const spot of spots) {
    for (const kind of ["pointerenter", "pointerdown"]) {
      spot.addEventListener(kind, () => read(spot));
    }
  }
  probe.addEventListener("input", () => read(spots[probe.value]));
  probe.addEventListener("focus", () => read(spots[probe.value]));
  plot.append(probe);
}
