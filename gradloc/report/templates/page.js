(function () {
  "use strict";
  const specs = JSON.parse(document.getElementById("pictures").textContent);
  const boxes = document.querySelectorAll("[data-picture]");
  const options = {
    renderer: "svg",
    mode: "vega-lite",
    actions: false,
    defaultStyle: false,
    hover: false,
    tooltip: { disableDefaultStyle: true, theme: "page" },
    config: {
      background: "transparent",
      // Vega measures text with it, so it needs the fonts themselves and no variable.
      font: getComputedStyle(document.documentElement).getPropertyValue("--font"),
      aria: false,  // the box around the picture carries one description for all of it
      view: { stroke: null },
      axis: {
        domainColor: "var(--line)", gridColor: "var(--line)", gridOpacity: 0.7,
        tickColor: "var(--line)", labelColor: "var(--muted)", titleColor: "var(--muted)",
        labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal",
        labelPadding: 6, titlePadding: 10, ticks: false,
      },
      legend: {
        labelColor: "var(--ink)", labelFontSize: 12, labelLimit: 125,
        titleColor: "var(--muted)", titleFontWeight: "normal", symbolStrokeWidth: 2,
        columnPadding: 18, rowPadding: 3, offset: 10,
      },
    },
  };
  const drawing = Array.from(boxes, async (box) => {
    try {
      await vegaEmbed(box, specs[box.dataset.picture], options);
      box.dataset.drawn = "yes";
    } catch (error) {
      box.dataset.drawn = "no";
      box.textContent = "This picture could not be drawn; the table below holds its figures.";
      console.error(error);
    }
  });
  Promise.all(drawing).then(() => { document.documentElement.dataset.ready = "yes"; });
})();
