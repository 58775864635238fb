// Values of the curves under the pointer, or at the place that the arrow keys move to. The page is whole without this.
"use strict";

function show(plot, told, hair, data, share) {
  const x = data.x[0] + share * (data.x[1] - data.x[0]);
  const rows = [];
  let at = null;
  for (const line of data.lines) {
    const near = line.values.reduce((best, one) => (Math.abs(one[0] - x) < Math.abs(best[0] - x) ? one : best));
    if (at === null) at = near[0];
    rows.push(`${line.name} ${near[1].toLocaleString("en", { maximumSignificantDigits: 4 })}` +
      (near[0] === at ? "" : ` (${data.along} ${near[0].toLocaleString("en")})`));
  }
  told.textContent = [`${data.along} ${at.toLocaleString("en", { maximumSignificantDigits: 6 })}`, ...rows].join("\n");
  const left = (at - data.x[0]) / (data.x[1] - data.x[0] || 1);
  hair.style.left = `${100 * left}%`;
  told.style.left = left < 0.5 ? `calc(${100 * left}% + 10px)` : "auto";
  told.style.right = left < 0.5 ? "auto" : `calc(${100 - 100 * left}% + 10px)`;
  hair.hidden = told.hidden = false;
}

for (const plot of document.querySelectorAll(".plot")) {
  const data = JSON.parse(plot.dataset.lines);
  const hair = plot.appendChild(Object.assign(document.createElement("div"), { className: "hair", hidden: true }));
  const told = plot.appendChild(Object.assign(document.createElement("div"), { className: "told", hidden: true }));
  told.style.whiteSpace = "pre";
  told.setAttribute("role", "status");
  const svg = plot.querySelector("svg");
  svg.tabIndex = 0;
  let share = 0;
  const hide = () => { hair.hidden = told.hidden = true; };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    show(plot, told, hair, data, share);
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const moved = { ArrowLeft: -0.02, ArrowRight: 0.02, Home: -1, End: 1 }[event.key];
    if (event.key === "Escape") hide();
    if (moved === undefined) return;
    event.preventDefault();
    share = Math.min(1, Math.max(0, share + moved));
    show(plot, told, hair, data, share);
  });
}
