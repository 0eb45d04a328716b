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
    one("[data-outlook]")?.plots?.freshen();
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

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function short(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e-4 && size < 1e6 ? String(+value.toPrecision(4)) : value.toExponential(3).replace(/\.?0+e/, "e");
}

// Where `x` stands among ascending numbers: the place of the first one that is not below it.
function placeOf(x, among) {
  let low = 0, high = among.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (among[middle] < x) low = middle + 1; else high = middle;
  }
  return low;
}

function nearest(x, among) {
  const place = placeOf(x, among);
  if (place === 0 || (place < among.length && among[place] - x < x - among[place - 1])) return place;
  return place - 1;
}

// The value at `x` of a line through points; before and behind them that of the nearest one.
function between(xs, ys, x) {
  const place = placeOf(x, xs);
  if (place === 0) return ys[0];
  if (place >= xs.length) return ys.at(-1);
  const part = (x - xs[place - 1]) / (xs[place] - xs[place - 1]);
  return ys[place - 1] + part * (ys[place] - ys[place - 1]);
}

const times = [[86400, { month: "short", day: "numeric" }], [60, { hour: "2-digit", minute: "2-digit" }],
  [0, { hour: "2-digit", minute: "2-digit", second: "2-digit" }]]
  .map(([least, fields]) => [least, new Intl.DateTimeFormat(undefined, { ...fields, hourCycle: "h23" })]);

function timesOf(ticks, space) {
  const written = times.find(([least]) => space >= least)[1];
  return ticks.map((tick) => {
    const moment = new Date(1000 * tick);
    return (space < 86400 && moment.getHours() + moment.getMinutes() + moment.getSeconds() === 0 ? times[0][1] : written).format(moment);
  });
}

// Charts above each other, over one axis: drag to zoom. What they show is read anew as it grows.
class Plots {
  constructor(figure, hint) {
    this.figure = figure;
    this.range = null;
    this.log = new URL(location.href).searchParams.get("scale") === "log";
    this.charts = [];
    this.freshen = paced(() => this.read(), 800, 0);
    this.controls(hint);
    new ResizeObserver(() => this.resize()).observe(figure);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.rebuild());
  }

  controls(hint) {
    this.bar = document.createElement("div");
    this.bar.className = "buttons small controls";
    this.whole = document.createElement("button");
    this.whole.type = "button";
    this.whole.textContent = "Whole run";
    this.whole.disabled = true;
    this.whole.addEventListener("click", () => this.zoom(null));
    const note = document.createElement("span");
    note.className = "note";
    note.textContent = hint;
    this.readout = document.createElement("span");
    this.readout.className = "readout";
    this.bar.append(this.whole, note, this.readout);
    this.figure.before(this.bar);
  }

  async read() {
    if (document.hidden) return;
    const address = new URL(this.figure.dataset.plots, location.href);
    if (this.range) {
      address.searchParams.set("start", this.rounded(Math.max(this.range[0], 0), Math.floor));
      address.searchParams.set("end", this.rounded(Math.max(this.range[1], 1), Math.ceil));
    }
    const answer = await fetch(address);
    if (!answer.ok) return;
    this.data = await answer.json();
    this.heard();
    const panels = this.panels();
    const shape = JSON.stringify(panels.map(({ name, lines }) => [name, lines.map((each) => each.label)]));
    if (!this.charts.length || shape !== this.shape) this.rebuild();
    else this.draw(panels);
    this.shape = shape;
  }

  heard() {}
  rounded(place, round) { return round(place); }
  at(place) { return place; } // where something stands on the axis
  back(x) { return x; } // and what stands there
  text(place) { return place.toLocaleString(); }
  underneath() {}
  above() {}

  zoom(range) {
    this.range = range;
    this.whole.disabled = !range;
    this.freshen();
    if (range) for (const chart of this.charts) this.fit(chart);
  }

  draw(panels) {
    for (const { name, table } of panels) this.charts.find((each) => each.named === name)?.setData(table, false);
    for (const chart of this.charts) this.fit(chart);
  }

  fit(chart) {
    const [min, max] = this.range ? this.range.map((each) => this.at(each)) : this.ends();
    chart.setScale("x", { min, max: max > min ? max : min + 1 });
  }

  rebuild() {
    if (!this.data || !window.uPlot) return;
    for (const chart of this.charts) chart.destroy();
    this.charts = [];
    for (const panel of this.panels().slice(0, 13)) {
      let holder = this.figure.querySelector(`[data-plot="${CSS.escape(panel.name)}"]`);
      if (!holder) {
        holder = document.createElement("div");
        holder.className = "plot";
        holder.dataset.plot = panel.name;
        const title = document.createElement("div");
        title.className = "title";
        title.textContent = panel.name;
        holder.append(title);
        this.figure.insertBefore(holder, this.tip ?? null);
      }
      one(".drawn", holder)?.remove();
      one(".canvas", holder)?.remove();
      const canvas = document.createElement("div");
      canvas.className = "canvas";
      canvas.setAttribute("role", this.charts.length ? "img" : "group"); // the first one may have buttons on it
      canvas.setAttribute("aria-label", `${panel.name}; the same stands in the table below`);
      holder.append(canvas);
      this.charts.push(this.chart(canvas, panel));
    }
    for (const chart of this.charts) this.fit(chart);
  }

  chart(canvas, { name, table, lines }) {
    const soft = colour("--soft"), line = colour("--line"), rates = name === "lr";
    const axis = { stroke: soft, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 }, font: "12px system-ui, sans-serif" };
    const chart = new uPlot({
      width: Math.max(canvas.clientWidth, 200),
      height: Math.round((rates ? 250 : 180) * Math.min(Math.max(innerHeight / 1000, 1), 2)),
      legend: { show: false },
      cursor: { sync: { key: "steps" }, drag: { x: true, y: false }, focus: { prox: -1 } },
      scales: {
        x: { time: this.timed ?? false },
        y: this.log
          ? { distr: 3 }
          : { range: (_, low, high) => low === null ? [0, 1] : this.room(rates ? Math.min(low, 0) : low, high) },
      },
      axes: [
        { ...axis, size: 34, values: (_, ticks, __, ___, space) => this.timed ? timesOf(ticks, space) : ticks.map((tick) => this.text(tick)) },
        { ...axis, size: 68, values: (_, ticks) => ticks.map((tick) => tick === null ? "" : short(tick)) },
      ],
      series: [{ label: "step" }, ...lines.map((each) => ({
        width: 2, points: { show: false }, ...each, stroke: colour(each.colour) + (each.faint ? "88" : ""),
      }))],
      hooks: {
        drawAxes: [(u) => this.underneath(u)],
        draw: [(u) => this.above(u)],
        setCursor: [(u) => this.tell(u)],
        setSelect: [(u) => {
          if (u.select.width < 4) return;
          const range = [u.select.left, u.select.left + u.select.width].map((each) => this.back(u.posToVal(each, "x")));
          u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
          this.zoom(range);
        }],
        ready: [(u) => u.over.addEventListener("click", () => this.clicked(u))],
      },
    }, table, canvas);
    chart.over.addEventListener("dblclick", () => this.zoom(null));
    chart.named = name;
    return chart;
  }

  clicked() {}

  room(low, high) {
    if (high - low > 1e-9 * Math.max(Math.abs(low), Math.abs(high), 1e-290)) return [low, high + 0.04 * (high - low)];
    return high ? [low - Math.abs(low), high + Math.abs(high)] : [-1, 1];
  }

  tell(u) {
    if (u.cursor.left < 0 || u.cursor.event === undefined && this.charts.some((each) => each.cursor.event)) return;
    const said = this.said(this.back(u.posToVal(u.cursor.left, "x")));
    if (said) this.readout.textContent = said;
  }

  resize() {
    for (const chart of this.charts) {
      const width = Math.max(chart.root.parentElement.clientWidth, 200);
      if (width !== chart.width) chart.setSize({ width, height: chart.height });
    }
  }
}

// The charts of a session: over steps, epochs, or the time at which steps were trained.
class SessionPlots extends Plots {
  constructor(figure) {
    super(figure, "Drag to zoom; click to explain a step.");
    this.series = JSON.parse(figure.dataset.series);
    this.unit = new URL(location.href).searchParams.get("axis") || "step";
    one("[data-units]")?.remove();
    one("[data-utc]")?.remove();
    this.units = document.createElement("span");
    this.units.className = "buttons";
    this.bar.prepend(this.units);
    this.tip = document.createElement("div");
    this.tip.className = "tip";
    this.tip.hidden = true;
    this.tip.setAttribute("role", "tooltip");
    this.tip.id = "tip";
    figure.append(this.tip);
    this.reasons = new Map();
  }

  get timed() {
    return this.unit === "time";
  }

  heard() {
    this.figure.dataset.trained = this.data.trained ?? "";
    const known = ["step"];
    if (this.data.per_epoch) known.push("epoch");
    if (this.data.moments.steps.length > 1) known.push("time");
    if (!known.includes(this.unit)) this.unit = "step";
    if (this.units.childElementCount === known.length || known.length === 1) return;
    this.units.replaceChildren(...known.map((unit) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = unit;
      button.setAttribute("aria-pressed", String(unit === this.unit));
      button.addEventListener("click", () => this.turn(unit));
      return button;
    }));
  }

  turn(unit) {
    this.unit = unit;
    for (const each of this.units.children) each.setAttribute("aria-pressed", String(each.textContent === unit));
    const address = new URL(location.href);
    if (unit === "step") address.searchParams.delete("axis"); else address.searchParams.set("axis", unit);
    history.replaceState(null, "", address);
    this.rebuild();
  }

  at(step, moments = this.data.moments) {
    return this.timed ? between(moments.steps, moments.seconds, step) : step;
  }

  back(x) {
    return this.timed ? between(this.data.moments.seconds, this.data.moments.steps, x) : x;
  }

  // The attempts that are over, where it is known at which place each stands.
  over() {
    return this.data.over.filter((each) => !this.timed || each.moments.steps.length > 1);
  }

  text(step) {
    return this.unit === "epoch" ? String(+(step / this.data.per_epoch).toPrecision(5)) : step.toLocaleString();
  }

  panels() {
    const { steps, series, metrics, metric_steps: measured } = this.data, over = this.over();
    const places = steps.map((each) => this.at(each));
    const rates = [places], lines = [];
    for (const [index, label] of this.series.entries()) {
      const paint = `--c${index % 6}`;
      rates.push(series[label].sealed, series[label].forecast);
      lines.push({ label, colour: paint }, { label: `${label} forecast`, colour: paint, dash: [6, 5] });
    }
    const panel = (name, table, own, values) => {
      const grey = over.filter((each) => values(each).length);
      const tables = grey.map((each) => [each.steps.map((step) => this.at(step, each.moments)), ...values(each)]);
      const faint = grey.flatMap((each) => values(each).map((_, index) => (
        { label: `${each.attempt} ${index}`, colour: "--soft", faint: true, width: 1.5, spanGaps: true })));
      return { name, lines: [...own, ...faint], table: tables.length ? uPlot.join([table, ...tables]) : table };
    };
    const drawn = [panel("lr", rates, lines, (each) => this.series.map((name) => each.series[name]))];
    for (const [index, [name, values]] of Object.entries(metrics).entries()) {
      const line = { label: name, colour: `--c${(index + 1) % 6}`, width: 1.5, spanGaps: true, points: { show: measured.length < 60 } };
      drawn.push(panel(name, [measured.map((each) => this.at(each)), values], [line],
        (each) => each.metrics[name] ? [each.metrics[name]] : []));
    }
    return drawn;
  }

  ends() {
    const { steps } = this.data, over = this.over();
    const places = [this.at(steps[0] ?? 0), this.at(steps.at(-1) ?? 1)];
    for (const each of over) places.push(this.at(each.steps[0], each.moments), this.at(each.steps.at(-1), each.moments));
    return [Math.min(...places), Math.max(...places)];
  }

  // What is sealed and not trained yet lies under a shade.
  underneath(u) {
    const { trained, horizon } = this.data;
    if (trained === null || horizon <= trained + 1) return;
    const left = Math.max(u.valToPos(this.at(trained + 1), "x", true), u.bbox.left);
    const right = Math.min(u.valToPos(this.at(horizon), "x", true), u.bbox.left + u.bbox.width);
    if (right <= left) return;
    u.ctx.save();
    u.ctx.globalAlpha = 0.14;
    u.ctx.fillStyle = colour("--accent");
    u.ctx.fillRect(left, u.bbox.top, right - left, u.bbox.height);
    u.ctx.restore();
  }

  above(u) {
    if (!u.marks) {
      u.marks = document.createElement("div");
      u.marks.className = "marks";
      u.over.append(u.marks);
    }
    const paint = { alarm: "--bad", decision: "--c3", order: "--c1", waiting: "--c1", attempt: "--ink" };
    const shown = this.data.marks.filter(({ step }) => this.at(step) >= u.scales.x.min && this.at(step) <= u.scales.x.max);
    u.ctx.save();
    u.ctx.setLineDash([3, 4]);
    u.ctx.globalAlpha = 0.7;
    for (const each of shown) {
      const x = Math.round(u.valToPos(this.at(each.step), "x", true));
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
      u.marks.replaceChildren(...shown.map((each) => this.button(each)));
    }
    // Marks that would cover each other stand below each other.
    const ends = [];
    [...u.marks.children].forEach((button, index) => {
      const left = u.valToPos(this.at(shown[index].step), "x");
      const free = ends.findIndex((end) => Math.abs(left - end) >= 15);
      const row = free < 0 ? Math.min(ends.length, 5) : free;
      ends[row] = left;
      button.style.left = `${left}px`;
      button.style.top = `${15 * row}px`;
    });
  }

  button(mark) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = mark.kind;
    button.setAttribute("aria-label", `${mark.kind} at step ${mark.step}: ${mark.text}`);
    button.setAttribute("aria-describedby", "tip");
    const hide = () => { this.tip.hidden = true; this.pointed = null; };
    const show = () => this.point(button, mark);
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

  // What a mark stands for, and why the values are from there on what they are.
  async point(button, mark) {
    this.pointed = mark;
    const text = document.createElement("p"), why = document.createElement("p");
    text.textContent = mark.text;
    why.className = "why note";
    why.textContent = this.reasons.get(mark.step) ?? "";
    this.tip.replaceChildren(text, why);
    this.tip.hidden = false;
    const here = this.figure.getBoundingClientRect(), place = button.getBoundingClientRect();
    const room = Math.max(here.width - this.tip.offsetWidth, 0);
    this.tip.style.left = `${Math.min(Math.max(place.left - here.left - 20, 0), room)}px`;
    this.tip.style.top = `${place.bottom - here.top + 6}px`;
    if (this.reasons.has(mark.step)) return;
    await new Promise((done) => { setTimeout(done, 150); }); // who only passes by asks for nothing
    if (this.pointed !== mark) return;
    const answer = await fetch(`${this.figure.dataset.explain}?step=${mark.step}`);
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    this.reasons.set(mark.step, one(".why", page)?.textContent ?? "");
    if (this.pointed === mark) why.textContent = this.reasons.get(mark.step);
  }

  said(place) {
    const { steps, series, metrics, moments } = this.data;
    if (!steps.length) return "";
    const at = nearest(place, steps), step = steps[at];
    const parts = [`step ${step.toLocaleString()}`];
    if (moments.steps.length > 1) {
      const moment = new Date(1000 * between(moments.steps, moments.seconds, step));
      parts.push(`${clock.format(moment)} (${moment.toISOString().slice(11, 19)} UTC)`);
    }
    for (const name of this.series) parts.push(`${name} ${short(series[name].sealed[at] ?? series[name].forecast[at])}`);
    for (const [name, values] of Object.entries(metrics)) if ((values[at] ?? null) !== null) parts.push(`${name} ${short(values[at])}`);
    return parts.join(" · ");
  }

  clicked(u) {
    if (u.cursor.left >= 0) explain(Math.max(Math.round(this.back(u.posToVal(u.cursor.left, "x"))), 0));
  }
}

// The charts of several sessions: over steps, or over parts of their plans.
class ComparedPlots extends Plots {
  constructor(figure) {
    super(figure, "Drag to zoom.");
    this.part = figure.dataset.by === "part";
  }

  rounded(place, round) { return this.part ? place.toFixed(3) : round(place); }
  text(place) { return this.part ? `${+place.toPrecision(5)} %` : place.toLocaleString(); }

  panels() {
    const some = this.data.sessions;
    const panel = (name, tables, lines) => ({ name, lines, table: tables.length > 1 ? uPlot.join(tables) : tables[0] });
    const paint = (index) => `--c${index % 6}`;
    const drawn = [panel("lr", some.map((each) => [each.places, each.sealed, each.forecast]), some.flatMap(({ name }, index) => [
      { label: name, colour: paint(index), dash: index > 5 ? [2, 3] : undefined },
      { label: `${name} forecast`, colour: paint(index), dash: [6, 5] },
    ]))];
    for (const metric of this.data.metrics) {
      const having = [...some.entries()].filter(([, each]) => metric in each.metrics);
      drawn.push(panel(metric, having.map(([, each]) => [each.measured, each.metrics[metric]]), having.map(([index, { name }]) => (
        { label: name, colour: paint(index), width: 1.5, spanGaps: true }))));
    }
    return drawn;
  }

  ends() {
    const places = this.data.sessions.flatMap((each) => [each.places[0] ?? 0, each.places.at(-1) ?? 1]);
    return [Math.min(...places), Math.max(...places)];
  }

  said(place) {
    const parts = [this.part ? `${place.toFixed(1)} %` : `step ${Math.round(place).toLocaleString()}`];
    for (const { name, places, sealed, forecast } of this.data.sessions) {
      if (!places.length || place < places[0] || place > places.at(-1)) continue;
      const at = nearest(place, places);
      parts.push(`${name} ${short(sealed[at] ?? forecast[at])}`);
    }
    return parts.join(" · ");
  }
}

// What a plan expects, beside what comes: the plan stays as it was told, what is measured goes on.

class Outlook {
  constructor(figure) {
    this.figure = figure;
    this.plan = JSON.parse(figure.dataset.outlook);
    this.charts = [];
    this.whole = figure.hasAttribute("data-whole");
    this.freshen = paced(() => this.read(), 1000);
    this.boxes = all('input[name="show"]');
    for (const box of this.boxes) box.addEventListener("change", () => this.rebuild());
    const view = one("[data-view]");
    view.addEventListener("click", (event) => {
      event.preventDefault();
      this.whole = !this.whole;
      view.textContent = this.whole ? "Close up" : "Whole run";
      this.rebuild();
    });
    new ResizeObserver(() => this.resize()).observe(figure);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.rebuild());
  }

  async read() {
    if (document.hidden) return;
    const answer = await fetch(new URL(this.figure.dataset.chart, location.href));
    if (!answer.ok) return;
    this.past = await answer.json();
    one("[data-gone-on]").hidden = this.past.horizon <= this.plan.horizon;
    if (!this.charts.length) this.rebuild();
    else for (const chart of this.charts) { chart.setData(this.table(chart.named), false); this.fit(chart); }
  }

  get chosen() {
    const shown = this.boxes.filter((each) => each.checked).map((each) => +each.value);
    return shown.filter((index) => this.plan.candidates[index]);
  }

  // What was measured or sealed, and what is expected, brought to common steps.
  table(name) {
    const { steps, metric_steps, metrics, series } = this.past;
    const past = name === "loss" ? [metric_steps, metrics[this.plan.metric] ?? []] : [steps, series[this.plan.series].sealed];
    const known = past[1].map((each, at) => [past[0][at], each]).filter(([, each]) => each !== null && each !== undefined);
    const tables = [[known.map(([step]) => step), known.map(([, each]) => each)]];
    for (const index of this.chosen) {
      const each = this.plan.candidates[index];
      if (name === "lr") tables.push([each.steps, each.lr]);
      else if (this.plan.told) tables.push([each.steps, each.low, each.high, each.loss]);
    }
    if (name === "loss" && this.plan.told) {
      const longest = this.longest();
      if (longest?.blind) tables.push([longest.steps, longest.blind]);
    }
    return uPlot.join(tables);
  }

  longest() {
    const all = this.chosen.map((index) => this.plan.candidates[index]);
    return all.reduce((most, each) => (most && most.steps.at(-1) >= each.steps.at(-1) ? most : each), null);
  }

  lines(name) {
    const lines = [{ label: "step" }, { label: "so far", stroke: colour("--ink"), width: 1.4, spanGaps: true, points: { show: false } }];
    const bands = [];
    const hidden = { width: 0, spanGaps: true, points: { show: false } };
    for (const index of name === "lr" || this.plan.told ? this.chosen : []) {
      const { planned } = this.plan.candidates[index];
      const stroke = colour(planned ? "--ink" : `--c${index % 6}`);
      if (name === "loss") {
        lines.push({ label: "", ...hidden, stroke }, { label: "", ...hidden, stroke });
        bands.push({ series: [lines.length - 1, lines.length - 2], fill: `color-mix(in srgb, ${stroke} ${planned ? 8 : 14}%, transparent)` });
      }
      lines.push({ label: `${index + 1}`, stroke, width: 2, dash: planned ? [6, 5] : undefined, spanGaps: true, points: { show: false } });
    }
    if (name === "loss" && this.plan.told && this.longest()?.blind) {
      lines.push({ label: "without rates", stroke: colour("--soft"), width: 1.5, dash: [6, 5], spanGaps: true, points: { show: false } });
    }
    return [lines, bands];
  }

  rebuild() {
    if (!this.past || !window.uPlot) return;
    for (const chart of this.charts) chart.destroy();
    this.charts = [];
    const kept = new Set(this.chosen.map(String));
    for (const each of all("[data-key]")) each.hidden = !kept.has(each.dataset.key);
    for (const name of ["loss", "lr"]) {
      const holder = one(`[data-plot="${name}"]`, this.figure);
      one(".drawn", holder)?.remove();
      one(".canvas", holder)?.remove();
      const canvas = document.createElement("div");
      canvas.className = "canvas";
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${name === "loss" ? this.plan.metric : this.plan.series} by step; the same stands in the tables below`);
      holder.append(canvas);
      this.charts.push(this.chart(canvas, name));
    }
    for (const chart of this.charts) this.fit(chart);
  }

  chart(canvas, name) {
    const soft = colour("--soft"), line = colour("--line");
    const axis = { stroke: soft, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 }, font: "12px system-ui, sans-serif" };
    const [series, bands] = this.lines(name);
    const chart = new uPlot({
      width: Math.max(canvas.clientWidth, 200),
      height: name === "loss" ? 320 : 170,
      legend: { show: false },
      cursor: { sync: { key: "outlook" }, drag: { x: false, y: false } },
      scales: {
        x: { time: false },
        y: name === "lr" ? { range: (_, low, high) => high === null ? [0, 1] : [0, high * 1.04 || 1] } : {},
      },
      axes: [
        { ...axis, values: (_, ticks) => ticks.map((tick) => tick.toLocaleString()) },
        { ...axis, size: 68, values: (_, ticks) => ticks.map((tick) => tick === null ? "" : short(tick)) },
      ],
      series,
      bands,
      hooks: { draw: [(u) => this.mark(u)] },
    }, this.table(name), canvas);
    chart.named = name;
    return chart;
  }

  fit(chart) {
    const { start, close, last } = this.plan;
    chart.setScale("x", { min: this.whole ? start : close, max: last });
  }

  // The first step that could still change when it was planned.
  mark(u) {
    const x = Math.round(u.valToPos(this.plan.horizon, "x", true));
    u.ctx.save();
    u.ctx.setLineDash([3, 4]);
    u.ctx.strokeStyle = colour("--soft");
    u.ctx.beginPath();
    u.ctx.moveTo(x, u.bbox.top);
    u.ctx.lineTo(x, u.bbox.top + u.bbox.height);
    u.ctx.stroke();
    u.ctx.restore();
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

// Read the page again and again, until a fresh one does not ask for it any more.
function again(pause) {
  const timer = setInterval(() => {
    if (!one("[data-every]")) { clearInterval(timer); return; }
    freshen();
    one("[data-plots]")?.plots?.freshen();
  }, pause);
}

function begin() {
  localise();
  all("[data-plots]").forEach((figure) => {
    figure.plots = "series" in figure.dataset ? new SessionPlots(figure) : new ComparedPlots(figure);
    figure.plots.freshen();
  });
  all("[data-outlook]").forEach((figure) => {
    figure.plots = new Outlook(figure);
    figure.plots.freshen();
  });
  all("[data-explain-form]").forEach(explainable);
  all("form[data-rehearse]").forEach(rehearsing);
  all("[data-feed]").forEach(follow);
  const every = one("[data-every]");
  if (every) again(1000 * Number(every.dataset.every));
}

begin();
