// What makes the pages live. Without it they work as well: every form is a real one.

const one = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// Moments, in the time of who reads them; the title keeps UTC.

const clock = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit",
});

function localise(within = document) {
  for (const time of all("time[datetime]", within)) {
    time.textContent = clock.format(new Date(time.dateTime));
  }
}

// Parts of the page that are read again when something has happened.

const link = one("#link");

function say(state, text) {
  if (link) {
    link.dataset.state = state;
    link.textContent = text;
  }
}

// At most one reading at a time, and most of the time none: slow answers are asked for less often.
function paced(work, least, first = least) {
  let waiting = false, running = false, again = false, pause = first;
  async function run() {
    waiting = false;
    running = true;
    const began = performance.now();
    try {
      await work();
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // the service is away; the feed comes back by itself
    } finally {
      pause = Math.max(least, 5 * (performance.now() - began));
      running = false;
      if (again) { again = false; ask(); }
    }
  }
  function ask() {
    if (running) { again = true; return; }
    if (waiting) return;
    waiting = true;
    setTimeout(run, pause);
  }
  return ask;
}

async function refresh() {
  if (document.hidden) return;
  const address = new URL(location.href);
  address.searchParams.set("live", "1");
  const answer = await fetch(address, { headers: { accept: "text/html" } });
  if (answer.status === 401) { location.reload(); return; }
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of all("[data-live]")) {
    const fresh = page.getElementById(part.id);
    if (!fresh || part.contains(document.activeElement) && part.matches("form, :has(input:focus)") || one("input:checked", part)) continue;
    localise(fresh);
    liken(part, fresh);
  }
}

// What a node is for: one that leads or belongs elsewhere is another one, wherever it stands.
const purposes = ["id", "href", "src", "action", "name", "value", "for", "aria-label"];

function isAnother(old, fresh) {
  return old.nodeName !== fresh.nodeName
    || old.nodeType === Node.ELEMENT_NODE && purposes.some((each) => old.getAttribute(each) !== fresh.getAttribute(each));
}

// Make a part like a fresh one, and leave the nodes that stay: one may have the focus, or be pressed just now.
function liken(old, fresh) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const before = [...old.childNodes], after = [...fresh.childNodes];
  after.forEach((each, place) => {
    if (place >= before.length) old.append(each);
    else if (isAnother(before[place], each)) before[place].replaceWith(each);
    else liken(before[place], each);
  });
  for (const each of before.slice(after.length)) each.remove();
}

const freshen = paced(refresh, 250);

function follow(feed) {
  let last = feed.dataset.after || "0";
  let source = null;
  const changed = () => {
    freshen();
    one("[data-plots]")?.plots?.freshen();
  };
  const heard = (event) => {
    if (event.lastEventId) last = event.lastEventId;
    changed();
  };
  function connect() {
    const address = new URL(feed.dataset.feed, location.href);
    address.searchParams.set("after", last);
    source = new EventSource(address);
    source.addEventListener("open", () => say("live", "live"));
    source.addEventListener("happened", heard);
    source.addEventListener("progress", heard);
    source.addEventListener("error", () => {
      say("away", "reconnecting…");
      // The browser comes back by itself, unless the answer was no feed: a proxy's, or the login.
      if (source.readyState === EventSource.CLOSED) {
        setTimeout(connect, 3000);
        freshen();
      }
    });
  }
  connect();
  document.addEventListener("visibilitychange", () => { if (!document.hidden) changed(); });
  addEventListener("pagehide", () => source.close());
}

// Charts.

const still = matchMedia("(prefers-reduced-motion: reduce)");

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function short(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e-4 && size < 1e6 ? String(+value.toPrecision(4)) : value.toExponential(3).replace(/\.?0+e/, "e");
}

class Plots {
  constructor(figure) {
    this.figure = figure;
    this.series = JSON.parse(figure.dataset.series);
    this.range = null;
    this.unit = "step";
    this.log = new URL(location.href).searchParams.get("scale") === "log";
    this.charts = [];
    this.freshen = paced(() => this.read(), 800, 0);
    this.controls();
    this.tip = document.createElement("div");
    this.tip.className = "tip";
    this.tip.hidden = true;
    this.tip.setAttribute("role", "tooltip");
    this.tip.id = "tip";
    figure.append(this.tip);
    new ResizeObserver(() => this.resize()).observe(figure);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.rebuild());
  }

  controls() {
    const bar = document.createElement("div");
    bar.className = "buttons small controls";
    this.units = document.createElement("span");
    this.units.className = "buttons";
    this.whole = document.createElement("button");
    this.whole.type = "button";
    this.whole.textContent = "Whole run";
    this.whole.disabled = true;
    this.whole.addEventListener("click", () => this.zoom(null));
    this.readout = document.createElement("span");
    this.readout.className = "readout";
    const hint = document.createElement("span");
    hint.className = "note";
    hint.textContent = "Drag to zoom; click to explain a step.";
    bar.append(this.units, this.whole, hint, this.readout);
    this.figure.before(bar);
  }

  offer() {
    const known = ["step"];
    if (this.data.per_epoch) known.push("epoch");
    if (this.data.pace && this.data.trained !== null) known.push("hours from now");
    if (this.units.childElementCount === known.length || known.length === 1) return;
    this.units.replaceChildren(...known.map((unit) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = unit;
      button.setAttribute("aria-pressed", String(unit === this.unit));
      button.addEventListener("click", () => {
        this.unit = unit;
        for (const each of this.units.children) each.setAttribute("aria-pressed", String(each === button));
        for (const chart of this.charts) chart.redraw();
      });
      return button;
    }));
  }

  place(step) {
    if (this.unit === "epoch") return String(+(step / this.data.per_epoch).toPrecision(5));
    if (this.unit === "step") return step.toLocaleString();
    return String(+((step - this.data.trained) * this.data.pace / 3600).toPrecision(3)) + " h";
  }

  async read() {
    if (document.hidden) return;
    const address = new URL(this.figure.dataset.plots, location.href);
    if (this.range) {
      address.searchParams.set("start", Math.max(Math.floor(this.range[0]), 0));
      address.searchParams.set("end", Math.max(Math.ceil(this.range[1]), 1));
    }
    const answer = await fetch(address);
    if (!answer.ok) return;
    this.data = await answer.json();
    this.figure.dataset.trained = this.data.trained ?? "";
    this.offer();
    const names = Object.keys(this.data.metrics).join("\n");
    if (!this.charts.length || names !== this.names) this.rebuild();
    else this.draw();
    this.names = names;
  }

  zoom(range) {
    this.range = range;
    this.whole.disabled = !range;
    this.freshen();
    if (range) for (const chart of this.charts) this.narrow(chart);
  }

  narrow(chart) {
    this.narrowing = true;
    chart.setScale("x", { min: this.range[0], max: this.range[1] });
    this.narrowing = false;
  }

  tables() {
    const lr = [this.data.steps];
    for (const name of this.series) {
      lr.push(this.data.series[name].sealed, this.data.series[name].forecast);
    }
    const drawn = [["lr", lr]];
    for (const [name, values] of Object.entries(this.data.metrics)) drawn.push([name, [this.data.metric_steps, values]]);
    return drawn;
  }

  draw() {
    for (const [name, table] of this.tables()) {
      const chart = this.charts.find((each) => each.named === name);
      chart?.setData(table, false);
    }
    for (const chart of this.charts) this.fit(chart);
  }

  fit(chart) {
    const steps = this.data.steps;
    const [min, max] = this.range ?? [steps[0] ?? 0, steps.at(-1) ?? 1];
    this.narrowing = true;
    chart.setScale("x", { min, max: Math.max(max, min + 1) });
    this.narrowing = false;
  }

  rebuild() {
    if (!this.data || !window.uPlot) return;
    for (const chart of this.charts) chart.destroy();
    this.charts = [];
    for (const [index, [name, table]] of this.tables().entries()) {
      let holder = this.figure.querySelector(`[data-plot="${CSS.escape(name)}"]`);
      if (!holder) {
        if (index > 12) break;
        holder = document.createElement("div");
        holder.className = "plot";
        holder.dataset.plot = name;
        const title = document.createElement("div");
        title.className = "title";
        title.textContent = name;
        holder.append(title);
        this.figure.insertBefore(holder, this.tip);
      }
      one(".drawn", holder)?.remove();
      one(".canvas", holder)?.remove();
      const canvas = document.createElement("div");
      canvas.className = "canvas";
      canvas.setAttribute("role", index ? "img" : "group"); // the first one has buttons on it
      canvas.setAttribute("aria-label", `${name} by step; the same stands in the table below`);
      holder.append(canvas);
      this.charts.push(this.chart(canvas, name, table, index));
    }
    for (const chart of this.charts) this.fit(chart);
  }

  chart(canvas, name, table, index) {
    const soft = colour("--soft"), line = colour("--line");
    const lines = [{ label: "step" }];
    if (name === "lr") {
      this.series.forEach((label, each) => {
        const stroke = colour(`--c${each % 6}`);
        lines.push({ label, stroke, width: 2, points: { show: false } });
        lines.push({ label: `${label} forecast`, stroke, width: 2, dash: [6, 5], points: { show: false } });
      });
    } else {
      lines.push({ label: name, stroke: colour(`--c${index % 6}`), width: 1.5, spanGaps: true, points: { show: table[0].length < 60 } });
    }
    const axis = { stroke: soft, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 }, font: "12px system-ui, sans-serif" };
    const chart = new uPlot({
      width: Math.max(canvas.clientWidth, 200),
      height: name === "lr" ? 260 : 190,
      legend: { show: false },
      cursor: { sync: { key: "steps" }, drag: { x: true, y: false }, focus: { prox: -1 } },
      scales: {
        x: { time: false },
        y: this.log
          ? { distr: 3 }
          : { range: (_, low, high) => low === null ? [0, 1] : this.room(name === "lr" ? Math.min(low, 0) : low, high) },
      },
      axes: [
        { ...axis, values: (_, ticks) => ticks.map((tick) => this.place(tick)) },
        { ...axis, size: 68, values: (_, ticks) => ticks.map((tick) => tick === null ? "" : short(tick)) },
      ],
      series: lines,
      hooks: {
        drawAxes: [(u) => this.shade(u)],
        draw: [(u) => this.mark(u)],
        setCursor: [(u) => this.tell(u)],
        setSelect: [(u) => {
          if (u.select.width < 4) return;
          const range = [u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x")];
          u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
          this.zoom(range);
        }],
        ready: [(u) => u.over.addEventListener("click", () => this.explain(u))],
      },
    }, table, canvas);
    chart.over.addEventListener("dblclick", () => this.zoom(null));
    chart.named = name;
    return chart;
  }

  room(low, high) {
    if (high - low > 1e-9 * Math.max(Math.abs(low), Math.abs(high), 1e-290)) return [low, high + 0.04 * (high - low)];
    return high ? [low - Math.abs(low), high + Math.abs(high)] : [-1, 1];
  }

  // What is sealed and not trained yet lies under a shade.
  shade(u) {
    const { trained, horizon } = this.data;
    if (trained === null || horizon <= trained + 1) return;
    const left = Math.max(u.valToPos(trained + 1, "x", true), u.bbox.left);
    const right = Math.min(u.valToPos(horizon, "x", true), u.bbox.left + u.bbox.width);
    if (right <= left) return;
    u.ctx.save();
    u.ctx.globalAlpha = 0.14;
    u.ctx.fillStyle = colour("--accent");
    u.ctx.fillRect(left, u.bbox.top, right - left, u.bbox.height);
    u.ctx.restore();
  }

  mark(u) {
    if (!u.marks) {
      u.marks = document.createElement("div");
      u.marks.className = "marks";
      u.over.append(u.marks);
    }
    const paint = { alarm: "--bad", decision: "--c3", order: "--c1", waiting: "--c1", attempt: "--ink" };
    const shown = this.data.marks.filter((each) => each.step >= u.scales.x.min && each.step <= u.scales.x.max);
    u.ctx.save();
    u.ctx.setLineDash([3, 4]);
    u.ctx.globalAlpha = 0.7;
    for (const each of shown) {
      const x = Math.round(u.valToPos(each.step, "x", true));
      u.ctx.strokeStyle = colour(paint[each.kind]);
      u.ctx.beginPath();
      u.ctx.moveTo(x, u.bbox.top);
      u.ctx.lineTo(x, u.bbox.top + u.bbox.height);
      u.ctx.stroke();
    }
    u.ctx.restore();
    if (u !== this.charts[0] && this.charts.length) return;
    const key = JSON.stringify(shown);
    if (u.marked !== key) {
      u.marked = key;
      u.marks.replaceChildren(...shown.map((each) => this.button(u, each)));
    }
    [...u.marks.children].forEach((button, index) => {
      button.style.left = `${u.valToPos(shown[index].step, "x")}px`;
    });
  }

  button(u, mark) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = mark.kind;
    button.setAttribute("aria-label", `${mark.kind} at step ${mark.step}: ${mark.text}`);
    const show = () => {
      this.tip.textContent = mark.text;
      this.tip.hidden = false;
      const left = button.offsetLeft + u.over.offsetLeft;
      const room = Math.max(this.figure.clientWidth - this.tip.offsetWidth, 0);
      this.tip.style.left = `${Math.min(Math.max(left - 20, 0), room)}px`;
    };
    const hide = () => { this.tip.hidden = true; };
    button.addEventListener("mouseenter", show);
    button.addEventListener("focus", show);
    button.addEventListener("mouseleave", hide);
    button.addEventListener("blur", hide);
    button.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
    button.addEventListener("click", (event) => {
      event.stopPropagation();
      explain(mark.step);
    });
    return button;
  }

  tell(u) {
    const index = u.cursor.idx;
    if (index === null || index === undefined || u !== this.charts.find((each) => each.cursor.event) && u.cursor.event === undefined) return;
    const step = u.data[0][index];
    if (step === undefined) return;
    const parts = [`step ${step.toLocaleString()}`];
    const at = this.data.steps.indexOf(step);
    for (const name of this.series) {
      const { sealed, forecast } = this.data.series[name];
      parts.push(`${name} ${short(sealed[at] ?? forecast[at])}`);
    }
    const where = this.data.metric_steps.indexOf(step);
    for (const [name, values] of Object.entries(this.data.metrics)) {
      if (where >= 0 && values[where] !== null) parts.push(`${name} ${short(values[where])}`);
    }
    this.readout.textContent = parts.join(" · ");
  }

  explain(u) {
    if (u.cursor.left < 0) return;
    explain(Math.max(Math.round(u.posToVal(u.cursor.left, "x")), 0));
  }

  resize() {
    for (const chart of this.charts) {
      const width = Math.max(chart.root.parentElement.clientWidth, 200);
      if (width !== chart.width) chart.setSize({ width, height: chart.height });
    }
  }
}

async function explain(step) {
  const form = one("[data-explain-form]"), place = one("#explanation"), figure = one("[data-plots]");
  if (!form || !place || !figure) return;
  one("#step", form).value = step;
  const answer = await fetch(`${figure.dataset.explain}?step=${step}`);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  place.replaceChildren(...(one("main", page) ?? page.body).childNodes);
}

function explainable(form) {
  form.addEventListener("submit", (event) => {
    const step = one("#step", form).value.trim();
    if (!/^\d+$/.test(step)) return;
    event.preventDefault();
    explain(step);
  });
}

// Forms that show what they would do, as their fields change.

function rehearsing(form) {
  const place = one("[data-rehearsal]");
  let asked = 0;
  async function look() {
    const mine = ++asked;
    const said = new URLSearchParams(new FormData(form));
    said.set("do", "rehearse");
    const answer = await fetch(form.action, { method: "POST", body: said, headers: { accept: "text/html" } });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (mine !== asked) return;
    const fresh = one("[data-rehearsal]", page);
    if (fresh) { localise(fresh); place.replaceChildren(...fresh.childNodes); }
  }
  const soon = paced(look, 300);
  form.addEventListener("input", (event) => { if (!event.target.closest("[data-quiet]")) soon(); });
}

// A question before what cannot be undone; without this script a page asks it.

function begin() {
  localise();
  all("[data-plots]").forEach((figure) => {
    figure.plots = new Plots(figure);
    figure.plots.freshen();
  });
  all("[data-explain-form]").forEach(explainable);
  all("form[data-rehearse]").forEach(rehearsing);
  all("[data-feed]").forEach(follow);
  const every = one("[data-every]");
  if (every) setInterval(freshen, 1000 * Number(every.dataset.every));
}

begin();
