// History charts with a cursor. app.js loads this and the library, which weighs as much as a page, when somebody points
// at a chart.
"use strict";

(() => {
  const SIZES = ["B", "kB", "MB", "GB", "TB"];
  const shown = {
    bytes: (value) => {
      let at = 0;
      while (value >= 1000 && at < 4) {
        value /= 1000;
        at += 1;
      }
      return `${value.toFixed(at ? 1 : 0)} ${SIZES[at]}`;
    },
    cores: (value) => `${value.toFixed(2)} cores`,
    "": (value) => String(Math.round(value * 100) / 100),
  };
  const paint = (name) => {
    const probe = document.createElement("i");
    probe.className = `paint-${name}`;
    document.body.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  };
  const charts = new Map();

  function table(data) {
    let at = 0;
    return [data.steps.map((step) => (at += step)), ...data.series.map((one) => one.values)];
  }

  function draw(plot) {
    const data = JSON.parse(plot.dataset.chart);
    const write = shown[data.unit] || shown[""];
    const line = paint("line"),
      ink = paint("ink"),
      strokes = [paint("a"), paint("b")],
      mark = paint("mark");
    const options = {
      width: plot.clientWidth,
      height: 150,
      cursor: { sync: { key: "history" }, y: false },
      ms: 1e-3,
      tzDate: (seconds) =>
        document.body.dataset.times === "local"
        ? new Date(seconds * 1000)
        : uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      scales: {
        x: { time: true, range: () => [charts.get(plot).from, charts.get(plot).to] },
        y: { range: (_u, _low, high) => [0, Math.max(high || 0, charts.get(plot).top) * 1.05] },
      },
      axes: [
        {
          stroke: ink,
          grid: { stroke: line, width: 1 },
          ticks: { stroke: line },
          size: 28,
          space: 64,
          values: [
            [86400, "{D} {MMM}", null, null, null, null, null, null, 1],
            [3600, "{HH}:{mm}", null, null, null, null, null, null, 1],
            [60, "{HH}:{mm}", null, null, null, null, null, null, 1],
            [1, "{HH}:{mm}:{ss}", null, null, null, null, null, null, 1],
          ],
        },
        {
          stroke: ink,
          grid: { stroke: line, width: 1 },
          ticks: { show: false },
          size: 62,
          values: (_u, values) => values.map((value) => write(value).replace(" cores", "")),
        },
      ],
      series: [
        { value: "{YYYY}-{MM}-{DD} {HH}:{mm}:{ss}" },
        ...data.series.map((one, number) => ({
          label: one.name,
          stroke: strokes[number],
          width: 1.5,
          dash: number ? [4, 3] : undefined,
          points: { size: 4 },
          value: (_u, value) => (value === null || value === undefined ? "no sample" : write(value)),
        })),
      ],
      hooks: {
        draw: [
          (u) => {
            const { ctx, bbox } = u;
            ctx.save();
            ctx.strokeStyle = mark;
            ctx.setLineDash([2, 3]);
            ctx.fillStyle = ink;
            ctx.textBaseline = "top";
            ctx.font = `${11 * devicePixelRatio}px ${getComputedStyle(document.body).fontFamily}`;
            let free = bbox.left; // where the next name fits
            for (const [at, name] of [...charts.get(plot).marks].sort((one, other) => one[0] - other[0])) {
              const x = Math.round(u.valToPos(at, "x", true));
              if (x < bbox.left || x > bbox.left + bbox.width) continue;
              ctx.beginPath();
              ctx.moveTo(x, bbox.top);
              ctx.lineTo(x, bbox.top + bbox.height);
              ctx.stroke();
              const wide = ctx.measureText(name).width + 6 * devicePixelRatio;
              if (x < free || x + wide > bbox.left + bbox.width) continue;
              ctx.fillText(name, x + 3 * devicePixelRatio, bbox.top + 2);
              free = x + wide;
            }
            const { limit } = charts.get(plot);
            if (limit) {
              const y = Math.round(u.valToPos(limit, "y", true));
              ctx.strokeStyle = ink;
              ctx.setLineDash([6, 4]);
              ctx.beginPath();
              ctx.moveTo(bbox.left, y);
              ctx.lineTo(bbox.left + bbox.width, y);
              ctx.stroke();
            }
            ctx.restore();
          },
        ],
      },
    };
    charts.set(plot, data);
    plot.replaceChildren();
    data.chart = new uPlot(options, table(data), plot);
    data.chart.root.setAttribute("aria-hidden", "true");
  }

  function update(plot, text) {
    const known = charts.get(plot);
    if (!known || !known.chart) return;
    const fresh = JSON.parse(text);
    plot.dataset.chart = text;
    charts.set(plot, { ...fresh, chart: known.chart });
    known.chart.setData(table(fresh));
  }

  function all() {
    for (const plot of charts.keys())
      if (!plot.isConnected) {
        charts.get(plot).chart.destroy();
        charts.delete(plot);
      }
    for (const plot of document.querySelectorAll(".plot[data-chart]"))
      if (!charts.has(plot) && plot.clientWidth) draw(plot);
  }

  // The pointer that asked for it shows its values, although it has not moved since.
  function begin({ clientX, clientY }) {
    uPlot.sync("history");
    document.addEventListener("htmx:afterSettle", all);
    all();
    const pointed = document.elementFromPoint(clientX, clientY);
    pointed?.dispatchEvent(new MouseEvent("mousemove", { bubbles: true, clientX, clientY }));
  }

  window.charts = { begin, update, has: (plot) => charts.has(plot), count: () => charts.size };
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    for (const [plot, data] of charts) data.chart.setSize({ width: plot.clientWidth, height: 150 });
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const plot of [...charts.keys()]) {
      charts.get(plot).chart.destroy();
      draw(plot);
    }
  });
})();
