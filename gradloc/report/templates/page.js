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
