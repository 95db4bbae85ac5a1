// <edge-chart data-series='{...}'>: accuracy over time with its 95 % band and a marker per release.
// It draws inside a shadow root, so a refresh of the page around it changes the data and nothing else.
// The table below the chart says the same in words; this element is hidden from screen readers.

const TICKS_FONT = "12px system-ui, sans-serif";

class EdgeChart extends HTMLElement {
  static observedAttributes = ["data-series"];

  connectedCallback() {
    if (this.shadowRoot) return;
    const root = this.attachShadow({ mode: "open" });
    const styled = [this.dataset.styles, this.dataset.own].map((href) => new Promise((done) => {
      const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href, onload: done, onerror: done });
      root.append(link);
    }));
    this.host = document.createElement("div");
    this.host.className = "host";
    this.tip = document.createElement("div");
    this.tip.className = "tip";
    this.tip.hidden = true;
    root.append(this.host, this.tip);
    new ResizeObserver(() => this.fit()).observe(this);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    Promise.all(styled).then(() => { this.styled = true; this.draw(); });
  }

  attributeChangedCallback() {
    if (this.styled) this.draw();
  }

  colour(name) {
    const probe = document.createElement("i");
    probe.style.color = `var(--${name})`; // resolves light-dark() to a colour that a canvas understands
    this.shadowRoot.append(probe);
    const value = getComputedStyle(probe).color;
    probe.remove();
    return value;
  }

  fit() {
    if (this.plot && this.clientWidth > 0) this.plot.setSize({ width: this.clientWidth, height: this.clientHeight });
  }

  draw() {
    this.series = JSON.parse(this.dataset.series);
    this.colours = Object.fromEntries(["accent", "accent-soft", "muted", "rule", "ink"].map((n) => [n, this.colour(n)]));
    this.plot?.destroy();
    this.tip.hidden = true;
    const { x, value, low, high } = this.series;
    this.plot = new uPlot(this.options(), [x, low, high, value], this.host);
  }

  options() {
    const c = this.colours;
    const hidden = { stroke: "transparent", width: 0, points: { show: false }, spanGaps: false };
    const axis = { stroke: c.muted, font: TICKS_FONT, ticks: { stroke: c.rule, width: 1, size: 5 } };
    return {
      width: Math.max(this.clientWidth, 200),
      height: this.clientHeight,
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 8 } },
      padding: [26, 14, 0, 0],
      scales: { x: { time: false, range: (_u, a, b) => [a - 0.35, b + 0.35] }, y: { range: () => this.range() } },
      axes: [
        { ...axis, grid: { show: false }, incrs: [1, 2, 3, 4, 6, 12, 24], values: (_u, at) => at.map((i) => this.series.labels[i] ?? "") },
        { ...axis, size: 52, grid: { stroke: c.rule, width: 1 }, values: (_u, at) => at.map((v) => `${Math.round(v * 100)}%`) },
      ],
      series: [
        {},
        hidden,
        { ...hidden },
        { stroke: c.accent, width: 2, points: { show: true, size: 6, fill: c.accent, stroke: c.accent }, spanGaps: false },
      ],
      bands: [{ series: [2, 1], fill: c["accent-soft"] }],
      hooks: { draw: [(u) => this.marks(u)], setCursor: [(u) => this.point(u)] },
    };
  }

  range() {
    const lowest = Math.min(...this.series.low.filter((v) => v !== null), 0.9);
    return [Math.max(0, Math.floor(lowest * 10 - 0.3) / 10), 1];
  }

  marks(u) {
    const { ctx, bbox } = u;
    const scale = devicePixelRatio;
    ctx.save();
    ctx.font = `${11 * scale}px system-ui, sans-serif`;
    ctx.textBaseline = "bottom";
    ctx.textAlign = "left"; // the axes leave their own alignment behind
    let free = -Infinity;
    for (const release of this.series.releases) {
      const x = u.valToPos(release.x, "x", true);
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.strokeStyle = this.colours.muted;
      ctx.setLineDash([4 * scale, 4 * scale]);
      ctx.lineWidth = scale;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      const width = ctx.measureText(release.label).width;
      const left = Math.max(Math.min(x - width / 2, bbox.left + bbox.width - width), bbox.left - 30 * scale);
      if (left < free) continue; // two releases side by side: the line stays, the table has both names
      ctx.fillStyle = this.colours.ink;
      ctx.fillText(release.label, left, bbox.top - 5 * scale);
      free = left + width + 8 * scale;
    }
    this.few(u);
    ctx.restore();
  }

  few(u) {
    const { ctx, bbox } = u;
    ctx.setLineDash([]);
    ctx.strokeStyle = this.colours.muted;
    ctx.lineWidth = 1.5 * devicePixelRatio;
    for (const [i, value] of this.series.value.entries()) {
      if (value !== null) continue;
      ctx.beginPath();
      ctx.arc(u.valToPos(this.series.x[i], "x", true), bbox.top + bbox.height - 9 * devicePixelRatio, 3.5 * devicePixelRatio, 0, 7);
      ctx.stroke();
    }
  }

  point(u) {
    const i = u.cursor.idx;
    this.tip.hidden = i === null || i === undefined || u.cursor.left < 0;
    if (this.tip.hidden) return;
    this.tip.replaceChildren(...this.series.tips[i].map((text, n) => Object.assign(document.createElement(n ? "div" : "b"), { textContent: text })));
    const left = u.valToPos(this.series.x[i], "x") + u.over.offsetLeft;
    const flip = left > this.clientWidth * 0.6;
    this.tip.classList.toggle("left", flip);
    this.tip.style.left = `${left + (flip ? -14 : 14)}px`;
  }
}

customElements.define("edge-chart", EdgeChart);
