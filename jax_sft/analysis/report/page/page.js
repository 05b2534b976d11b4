"use strict";

// Charts, and the legend that hides runs in all of them.
const views = [];
const options = { renderer: "svg", actions: false };
for (const place of document.querySelectorAll("[data-figure]")) {
  vegaEmbed(place, DATA.specs[place.dataset.figure], options).then((result) => views.push(result.view));
}
const legend = document.getElementById("legend");
legend.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
  const pressed = legend.querySelectorAll('button[aria-pressed="true"]');
  const shown = Array.from(pressed, (b) => b.dataset.run);
  for (const view of views) view.signal("shown", shown).runAsync();
});

function make(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

// The table of all numbers: click a heading to sort, type to filter.
const MOST_ROWS = 1000;
const NUMERIC = new Set(["step", "n", "mean", "low", "high", "mean_tokens", "truncation_rate", "no_answer_rate"]);
const results = document.getElementById("results");
if (results) {
  const { columns, details, rows } = DATA.table;
  const detail = (name, value) => {
    if (value === null) return null;
    const shown = name.endsWith("_rate") ? `${(100 * value).toFixed(1)}%`
      : value.toLocaleString("en", { maximumFractionDigits: 1 });
    return `${name.replaceAll("_", " ").replace(" rate", "")} ${shown}`;
  };
  const detailsOf = (row) => {
    const texts = details.map((name, i) => detail(name, row[columns.length + i])).filter(Boolean);
    return texts.join("  ·  ") || "nothing more was kept";
  };
  let sorted = { column: -1, descending: false };
  const shown = (value, column) => {
    if (value === null) return "–";
    if (column === "step" || column === "n") return value.toLocaleString("en");
    if (column === "mean_tokens") return value.toFixed(1);
    return typeof value === "number" ? value.toFixed(3) : value;
  };
  const fill = () => {
    const words = document.getElementById("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    let kept = rows.filter((row) => {
      const text = row.slice(0, 5).join(" ").toLowerCase();
      return words.every((word) => text.includes(word));
    });
    if (sorted.column >= 0) {
      const of = (row) => row[sorted.column];
      const sign = sorted.descending ? -1 : 1;
      kept = [...kept].sort((a, b) => {
        if (of(a) === of(b)) return 0;
        if (of(a) === null || of(b) === null) return of(a) === null ? 1 : -1;
        return (of(a) < of(b) ? -1 : 1) * sign;
      });
    }
    const more = kept.length > MOST_ROWS ? `, the first ${MOST_ROWS} shown` : "";
    document.getElementById("count").textContent = `${kept.length.toLocaleString("en")} rows${more}`;
    results.tBodies[0].replaceChildren(...kept.slice(0, MOST_ROWS).map((row) => {
      const line = make("tr");
      columns.forEach((name, i) => line.append(make("td", shown(row[i], name), NUMERIC.has(name) ? "n" : "")));
      line.title = detailsOf(row);
      line.addEventListener("click", () => {
        if (line.nextSibling?.className === "details") { line.nextSibling.remove(); return; }
        const cell = make("td", detailsOf(row));
        cell.colSpan = columns.length;
        const more = make("tr", undefined, "details");
        more.append(cell);
        line.after(more);
      });
      return line;
    }));
  };
  const head = make("tr");
  columns.forEach((column, i) => {
    const name = column.replaceAll("_", " ");
    const cell = make("th", name, NUMERIC.has(column) ? "n" : "");
    cell.addEventListener("click", () => {
      sorted = { column: i, descending: sorted.column === i && !sorted.descending };
      head.childNodes.forEach((other, j) => {
        const arrow = j === i ? (sorted.descending ? " ↓" : " ↑") : "";
        other.textContent = columns[j].replaceAll("_", " ") + arrow;
      });
      fill();
    });
    head.append(cell);
  });
  results.tHead.append(head);
  document.getElementById("filter").addEventListener("input", fill);
  fill();
}

// Completions: one item, two panes, each at a run and a step of its own.
const mark = (entry) => {
  if (!entry?.judged) return ["·", "none"];
  if (entry.score === 1) return ["✓", "right"];
  if (!entry.answered) return ["–", "none"];
  if (entry.score === 0) return ["✗", "wrong"];
  return entry.score === null || entry.score === undefined ? ["·", "none"] : [entry.score.toFixed(2), "none"];
};

function withThoughts(entry) {
  const pre = make("pre");
  pre.append(make("span", entry.thought, "thought"), entry.said);
  return pre;
}

function status(entry) {
  const [glyph, className] = mark(entry);
  const unmarked = entry.answered ? "judged" : entry.judged ? "no answer" : "not judged";
  const words = { right: "right", wrong: "wrong" }[className] || unmarked;
  const line = make("div", "", "status");
  line.append(make("b", `${glyph} ${words}`, className));
  line.append(`  ·  answer: ${entry.answer || "none"}  ·  ${entry.tokens.toLocaleString("en")} tokens`);
  if (entry.finish === "length") line.append(make("b", "  ·  cut at the limit", "wrong"));
  if (entry.finish === "loop") line.append(make("b", "  ·  cut: it repeated itself", "wrong"));
  return line;
}

const completions = document.getElementById("completions");
if (completions) {
  const { items, units } = DATA.sample;
  const benchmarks = document.getElementById("pick-benchmark");
  const picker = document.getElementById("pick-item");
  const runs = Object.keys(units);
  const stepsOf = (run) => Object.keys(units[run]?.[benchmarks.value] ?? {}).map(Number).sort((a, b) => a - b);
  const state = [{ run: runs[0], step: null }, { run: runs[0], step: null }];

  const drawPane = (i) => {
    const pane = completions.querySelectorAll(".pane")[i];
    const steps = stepsOf(state[i].run);
    if (!steps.includes(state[i].step)) state[i].step = i === 0 ? steps[0] : steps[steps.length - 1];
    const select = make("select");
    for (const run of runs) select.append(new Option(run, run, false, run === state[i].run));
    select.addEventListener("change", () => { state[i].run = select.value; drawPane(i); });
    const label = make("label", "Run ");
    label.append(select);
    const controls = make("div", undefined, "controls");
    controls.append(label);
    const strip = make("div", undefined, "steps");
    const entryAt = (step) => units[state[i].run][benchmarks.value][step][Number(picker.value)];
    for (const step of steps) {
      const [glyph, className] = mark(entryAt(step));
      const button = make("button", step.toLocaleString("en"));
      button.prepend(make("b", glyph, className));
      button.setAttribute("aria-pressed", step === state[i].step);
      button.addEventListener("click", () => { state[i].step = step; drawPane(i); });
      strip.append(button);
    }
    const entry = steps.length ? entryAt(state[i].step) : null;
    const body = entry ? [status(entry), withThoughts(entry)] : [make("p", "No completion stored here.", "note")];
    pane.style.borderTop = `4px solid ${DATA.colours[state[i].run] ?? "#888"}`;
    pane.replaceChildren(controls, strip, ...body);
  };

  const drawItem = () => {
    const item = items[benchmarks.value][Number(picker.value)];
    const prompt = document.getElementById("prompt");
    prompt.replaceChildren();
    if (!item) { prompt.append("This benchmark has no items."); return; }
    document.getElementById("why").textContent = item.why;
    for (const message of item.messages) prompt.append(make("div", message.role, "role"), make("pre", message.content));
    if (!item.messages.length) prompt.append("The prompt is not stored with the study.");
    prompt.append(make("div", "reference", "role"), make("pre", item.reference));
    drawPane(0);
    drawPane(1);
  };

  const drawBenchmark = () => {
    const chosen = items[benchmarks.value];
    picker.replaceChildren(...chosen.map((item, i) => new Option(`${i + 1} of ${chosen.length}: ${item.id}`, i)));
    drawItem();
  };

  const move = (by) => {
    const count = items[benchmarks.value].length;
    if (!count) return;
    picker.value = (Number(picker.value) + by + count) % count;
    drawItem();
  };

  for (const name of Object.keys(items)) benchmarks.append(new Option(name, name));
  benchmarks.addEventListener("change", drawBenchmark);
  picker.addEventListener("change", drawItem);
  document.getElementById("previous").addEventListener("click", () => move(-1));
  document.getElementById("next").addEventListener("click", () => move(1));
  if (benchmarks.value) drawBenchmark();
}
