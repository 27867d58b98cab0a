(function () {
  "use strict";
  const options = { displayModeBar: false, responsive: true, showTips: false, typesetMath: false };
  const drawn = new Map();

  // Specifications name colours as CSS variables, so that charts follow the page into the dark.
  function themed(part) {
    if (typeof part === "string") {
      const name = /^var\((--[a-z-]+)\)$/.exec(part);
      return name ? getComputedStyle(document.documentElement).getPropertyValue(name[1]).trim() : part;
    }
    if (Array.isArray(part)) return part.map(themed);
    if (part === null || typeof part !== "object") return part;
    return Object.fromEntries(Object.entries(part).map(([key, value]) => [key, themed(value)]));
  }

  function draw(chart) {
    const spec = drawn.get(chart);
    Plotly.react(chart, themed(spec.data), themed(spec.layout), options);
  }

  function start(chart) {
    const source = document.querySelector(`script[data-for="${chart.id}"]`);
    drawn.set(chart, JSON.parse(source.textContent));
    draw(chart);
  }

  function show(button) {
    const figure = button.closest("figure");
    const chart = figure.querySelector(".chart");
    if (!drawn.has(chart)) start(chart);
    drawn.get(chart).data.forEach((trace, index) => { trace.visible = String(index) === button.dataset.trace; });
    figure.querySelectorAll("button").forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
    draw(chart);
  }

  // Fixed words stand in data-kinds; nothing from data or models does.
  function filter(button) {
    const { kind } = button.dataset;
    button.closest("details").querySelectorAll(".transcript").forEach((transcript) => {
      transcript.hidden = kind !== "" && !transcript.dataset.kinds.split(" ").includes(kind);
    });
    button.parentElement.querySelectorAll("button").forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
  }

  // A link to an audit opens it.
  function reveal() {
    const target = document.getElementById(location.hash.slice(1));
    if (target instanceof HTMLDetailsElement) {
      target.open = true;
      target.scrollIntoView();
    }
  }

  // Charts are drawn when they come near the window: a demo holds more than a hundred.
  const watcher = new IntersectionObserver((entries) => {
    entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
      watcher.unobserve(entry.target);
      if (!drawn.has(entry.target)) start(entry.target);
    });
  }, { rootMargin: "400px" });
  document.querySelectorAll(".chart").forEach((chart) => watcher.observe(chart));
  document.querySelectorAll(".switched button").forEach((button) => button.addEventListener("click", () => show(button)));
  document.querySelectorAll(".filter button").forEach((button) => button.addEventListener("click", () => filter(button)));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach((_, chart) => draw(chart)));
  addEventListener("hashchange", reveal);
  reveal();
})();
