"use strict";
// What the transcripts of a page do. Texts are a model's or an attacker's: they are set as text, never as markup.
async function explore(library, table, texts, harmful) {
  const $ = (id) => document.getElementById(id);
  const unpack = (packed) => {
    const raw = atob(packed), bytes = new Uint8Array(raw.length);
    for (let at = 0; at < raw.length; at++) bytes[at] = raw.charCodeAt(at);
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")));
  };
  const content = async (packed) => (await unpack(packed)).json();
  const reading = content(texts), data = await content(table);
  (0, eval)(await (await unpack(library)).text()); // defines agGrid
  const { asked, rows, systems } = data, count = rows.system.length;
  const OUTCOMES = {
    "harmful-answered": ["got through", "bad"], "harmful-refused": ["harmful, stopped", "good"],
    "harmless-refused": ["harmless, refused", "bad"], "harmless-answered": ["answered", "good"],
    "unlabelled-refused": ["no label, refused", ""], "unlabelled-answered": ["no label, answered", ""],
    unscored: ["unscored", "unscored"],
  };
  const LABELS = { null: "unlabelled", 0: "harmless", 1: "harmful" }, DECISIONS = ["", "comply", "refuse"];

  // Of every row, what is filtered and sorted by.
  const outcomes = Array.from({ length: count }, (_, row) => {
    const refused = rows.refused[row];
    return refused === null ? "unscored" : `${LABELS[asked.harmful[rows.asked[row]]]}-${refused ? "refused" : "answered"}`;
  });
  const margins = Float64Array.from({ length: count }, (_, row) => {
    const score = rows.score[row], limit = systems[rows.system[row]].threshold;
    return score === null || limit === null ? NaN : score - limit;
  });
  const disagrees = (row) => rows.decision[row] > 0 && rows.refused[row] !== null
    && (rows.decision[row] === 2) !== (rows.refused[row] === 1);
  const KEYS = {
    nearest: (row) => Math.abs(margins[row]),
    disagree: (row) => (disagrees(row) ? -1e6 : 0) - Math.abs(margins[row] || 0),
    high: (row) => -(rows.score[row] ?? NaN),
    low: (row) => rows.score[row] ?? NaN,
  };
  const byAttempt = new Map();
  for (let row = 0; row < count; row++) {
    const place = rows.asked[row];
    byAttempt.has(place) ? byAttempt.get(place).push(row) : byAttempt.set(place, [row]);
  }

  let shown = [], lower = [], revealed = null, order = [], last = 0, state = {};
  const chosen = new Set();
  const text = (place) => revealed?.[place] ?? shown[place] ?? "";
  const row = (at) => rows.asked[at];
  const number = (value) => value.toLocaleString("en");
  const decimals = (value) => (Number.isFinite(value) ? value.toFixed(2) : "");
  const categories = (place) => data.categories[asked.category[place]].join(", ");
  const named = (at) => data.rules[rows.rules[at]].join(", ");

  // Search and filters.
  function hits(query) {
    const wanted = query.toLowerCase(), found = new Uint8Array(shown.length);
    for (let place = 0; place < found.length; place++) found[place] = lower[place].includes(wanted);
    for (const [place, held] of Object.entries(revealed ?? {})) found[place] |= held.toLowerCase().includes(wanted);
    return found;
  }
  function filter() {
    const meant = (titles, wanted) => titles.map((one) => !wanted || one === wanted);
    const system = meant(systems.map((one) => one.title), state.defence), attack = meant(data.attacks, state.attack);
    const from = state.from ? Number(state.from) : -Infinity, to = state.to ? Number(state.to) : Infinity;
    const ranged = state.from || state.to, found = state.q ? hits(state.q) : null;
    const rules = data.rules.map((one) => !state.rule || one.includes(state.rule));
    const category = data.categories.map((one) => !state.category || one.includes(state.category));
    const fits = asked.id.map((id, at) =>
      attack[asked.attack[at]] && category[asked.category[at]]
      && (!state.request || asked.seed[at] === state.request));
    const told = found && asked.id.map((id, at) =>
      found[asked.text[at]] || found[asked.plain[at]] || found[asked.prefill[at]] || id === state.q);
    order = [];
    for (let at = 0; at < count; at++) {
      const score = rows.score[at];
      if (fits[row(at)] && rules[rows.rules[at]] && system[rows.system[at]]
        && (!state.outcome || outcomes[at] === state.outcome)
        && (!ranged || (score !== null && score >= from && score <= to))
        && (!found || told[row(at)] || found[rows.thought[at]] || found[rows.answer[at]])) order.push(at);
    }
    const key = KEYS[state.sort];
    if (key) {
      const keys = new Float64Array(count);
      for (const at of order) keys[at] = Number.isNaN(key(at)) ? Infinity : key(at);  // those without a score come last
      order.sort((a, b) => keys[a] - keys[b] || a - b);
    }
  }

  // The grid.
  const COLUMNS = {
    outcome: ["Outcome", 140, (at) => OUTCOMES[outcomes[at]][0]],
    system: ["Defence", 115, (at) => systems[rows.system[at]].title],
    attack: ["Attack", 140, (at) => data.attacks[asked.attack[row(at)]]],
    category: ["Category", 105, (at) => categories(row(at))],
    decision: ["Decision", 88, (at) => DECISIONS[rows.decision[at]]],
    score: ["Score", 70, (at) => decimals(rows.score[at] ?? NaN)],
    margin: ["To threshold", 108, (at) => (margins[at] > 0 ? "+" : "") + decimals(margins[at])],
    rules: ["Rules named", 106, named],
    request: ["Request", 320, (at) => text(asked.plain[row(at)] || asked.text[row(at)])],
  };
  const checkbox = ({ data: one }) => {
    const box = document.createElement("input");
    Object.assign(box, { type: "checkbox", checked: chosen.has(one?.at), tabIndex: -1, ariaLabel: "Selected" });
    return box;
  };
  const narrow = matchMedia("(max-width: 700px)"), least = ["outcome", "margin", "request"];
  const colour = (kind) => ({ data: one }) => one !== undefined && OUTCOMES[outcomes[one.at]][1] === kind;
  const grid = agGrid.createGrid($("grid"), {
    theme: agGrid.themeQuartz.withParams({
      backgroundColor: "var(--back)", foregroundColor: "var(--ink)", textColor: "var(--ink)", headerTextColor: "var(--ink)",
      headerBackgroundColor: "var(--card)", borderColor: "var(--line)", accentColor: "var(--one)", fontFamily: "inherit",
      fontSize: 13, spacing: 5, browserColorScheme: "inherit",
    }),
    rowModelType: "infinite", cacheBlockSize: 200, ensureDomOrder: true, suppressMovableColumns: true, animateRows: false,
    getRowId: ({ data: one }) => String(one.at),
    rowClassRules: { chosen: ({ data: one }) => chosen.has(one?.at) },
    defaultColDef: { sortable: false, suppressHeaderMenuButton: true },
    columnDefs: [
      { colId: "chosen", headerName: "Selected", width: 82, headerTooltip: "Selected", cellRenderer: checkbox, resizable: false },
      ...Object.entries(COLUMNS).map(([id, [headerName, width, value]]) => ({
        colId: id, headerName, width, valueGetter: ({ data: one }) => (one ? value(one.at) : ""),
        ...(id === "request" ? { flex: 1, minWidth: 150 } : {}),
        ...(id === "outcome" ? { cellClassRules: Object.fromEntries(["good", "bad", "unscored"].map((k) => [k, colour(k)])) } : {}),
      })),
    ],
    onCellClicked: ({ column, data: one, rowIndex, event }) =>
      (column.getColId() === "chosen" ? choose(rowIndex, event.shiftKey) : open(one.at, true)),
    onCellKeyDown: ({ data: one, rowIndex, event }) => {
      if (event.key === " ") { event.preventDefault(); choose(rowIndex, event.shiftKey); }
      if (event.key === "Enter") open(one.at, true);
    },
  });
  const columns = () => grid.setColumnsVisible(Object.keys(COLUMNS).filter((one) => !least.includes(one)), !narrow.matches);
  narrow.addEventListener("change", columns);
  columns();
  document.querySelector("#grid [role=grid]").setAttribute("aria-label", "Attempts");

  function draw() {
    filter();
    grid.setGridOption("datasource", {
      rowCount: order.length,
      getRows: ({ startRow, endRow, successCallback }) =>
        successCallback(order.slice(startRow, endRow).map((at) => ({ at })), order.length),
    });
    tell();
  }
  function tell() {
    $("found").textContent = `${number(order.length)} of ${number(count)} attempts`
      + (state.request ? " of one request" : "") + (chosen.size ? `, ${number(chosen.size)} selected` : "");
    const what = chosen.size ? `${number(chosen.size)} selected` : `${number(order.length)} found`;
    $("csv").textContent = `Export ${what} as CSV`;
    $("jsonl").textContent = `Export ${what} as JSONL`;
  }
  function choose(place, upTo) {
    const on = !chosen.has(order[place]), [low, high] = upTo ? [Math.min(last, place), Math.max(last, place)] : [place, place];
    for (const at of order.slice(low, high + 1)) on ? chosen.add(at) : chosen.delete(at);
    last = place;
    mark();
  }
  function mark() {
    grid.refreshCells({ columns: ["chosen"], force: true });
    grid.forEachNode((node) => node.data && node.setData(node.data));  // which rows are marked
    tell();
  }

  // One request across the defences.
  function make(tag, content, ...inside) {
    const made = document.createElement(tag);
    Object.assign(made, typeof content === "string" ? { textContent: content } : content);
    made.append(...inside);
    return made;
  }
  const lines = (pairs) => make("dl", {}, ...pairs.filter(([, value]) => value).flatMap(([name, value]) =>
    [make("dt", name), make("dd", value)]));
  const block = (title, value) => (value ? [make("h4", title), make("pre", value)] : []);
  const ruled = (ids) => ids.map((id) => (data.titles[id] ? `${id} ${data.titles[id]}` : id)).join("; ");
  function side(at) {
    const [told, kind] = OUTCOMES[outcomes[at]], one = systems[rows.system[at]], score = rows.score[at];
    const above = decimals(Math.abs(margins[at])) + (margins[at] < 0 ? " below" : " above");
    const limit = one.threshold === null ? "" : `${one.threshold.toFixed(2)}${one.known ? "" : ", as its decisions tell"}`;
    return make("div", { className: "side" },
      make("strong", one.title), " ", make("span", { className: `tag ${kind}`, textContent: told }),
      lines([
        ["verdict", DECISIONS[rows.decision[at]]],
        ["score", score === null ? "" : `${score.toFixed(2)}${Number.isNaN(margins[at]) ? "" : `, ${above} the threshold`}`],
        ["refuses from", score === null ? "" : limit],
        ["rules", ruled(data.rules[rows.rules[at]])],
        ["judge", disagrees(at) ? "disagrees with the verdict" : ""],
        ["unscored", data.causes[rows.cause[at]]],
      ]),
      ...block("Thought", text(rows.thought[at])), ...block("Answer", text(rows.answer[at])));
  }
  function open(at, focus) {
    const place = row(at), id = asked.id[place], here = order.indexOf(at);
    const step = (name, to) => make("button", { type: "button", textContent: name, disabled: order[to] === undefined, onclick: () => open(order[to], true) });
    state.open = id;
    keep();
    $("one").replaceChildren(
      make("h3", { id: "one-title", textContent: `Attempt ${id}` }),
      make("div", { className: "do" }, step("Previous", here - 1), step("Next", here + 1),
        make("button", { type: "button", textContent: "This request under every attack", onclick: () => look({ request: asked.seed[place], open: id }) }),
        make("button", { type: "button", textContent: "Close", onclick: close })),
      lines([
        ["attack", data.attacks[asked.attack[place]]], ["category", categories(place)],
        ["label", LABELS[asked.harmful[place]]], ["rules of the label", ruled(data.rules[asked.rules[place]])],
      ]),
      ...block("What is asked", text(asked.plain[place])),
      ...block(asked.plain[place] ? "As it was put" : "What is asked", text(asked.text[place])),
      ...block("The model's turn was begun with", text(asked.prefill[place])),
      make("div", { className: "sides" }, ...byAttempt.get(place).map(side)),
    );
    $("one").hidden = false;
    $("one").dataset.at = at;
    if (focus) $("one").focus();
  }
  function close() {
    const here = order.indexOf(Number($("one").dataset.at));
    $("one").hidden = true;
    delete state.open;
    keep();
    if (here >= 0) {
      grid.ensureIndexVisible(here);
      grid.setFocusedCell(here, "outcome");
    } else $("filters").elements.q.focus();
  }
  $("one").addEventListener("keydown", (event) => event.key === "Escape" && close());

  // What the address says. One without an equals sign is a place on the page, and none of these.
  const addressed = () => location.hash.includes("=");
  let waiting = 0;
  function keep() {
    clearTimeout(waiting);  // browsers refuse an address that changes with every key
    waiting = setTimeout(() => {
      const told = String(new URLSearchParams(state));
      if (told || addressed()) history.replaceState(null, "", `#${told}`);
    }, 250);
  }
  function look(wanted) {
    state = { ...wanted };
    for (const field of $("filters").elements) field.value = state[field.name] ?? "";
    draw();
    const place = asked.id.indexOf(state.open);
    if (place >= 0) open(order.find((at) => row(at) === place) ?? byAttempt.get(place)[0], false);
    else $("one").hidden = true;
    keep();
  }
  function follow() {
    look(addressed() ? Object.fromEntries(new URLSearchParams(location.hash.slice(1))) : {});
    if (addressed()) ($("one").hidden ? $("transcripts") : $("one")).scrollIntoView();
  }
  addEventListener("hashchange", () => {
    clearTimeout(waiting);
    if (addressed()) follow();
  });

  // What is exported and printed: the selected, or all that is found.
  const wanted = () => (chosen.size ? [...new Set([...order.filter((at) => chosen.has(at)), ...chosen])] : order);
  const record = (at) => ({
    attempt: asked.id[row(at)], request_id: asked.seed[row(at)], defence: systems[rows.system[at]].title,
    attack: data.attacks[asked.attack[row(at)]], category: categories(row(at)), label: LABELS[asked.harmful[row(at)]],
    outcome: rows.refused[at] === null ? "unscored" : rows.refused[at] ? "refused" : "answered",
    decision: DECISIONS[rows.decision[at]], score: rows.score[at], threshold: systems[rows.system[at]].threshold,
    rules: named(at), request: text(asked.plain[row(at)] || asked.text[row(at)]), asked: text(asked.text[row(at)]),
    thought: text(rows.thought[at]), answer: text(rows.answer[at]), unscored_cause: data.causes[rows.cause[at]],
  });
  // A spreadsheet takes a text that begins so for a formula.
  const cell = (value) => `"${(typeof value === "string" ? value.replace(/^(?=[=+@\t\r-])/, "'") : String(value ?? "")).replaceAll('"', '""')}"`;
  function save(name, type, content) {
    const link = make("a", { href: URL.createObjectURL(new Blob([content], { type })), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }
  $("csv").onclick = () => {
    const records = wanted().map(record), names = Object.keys(record(0));
    save("attempts.csv", "text/csv", [names, ...records.map(Object.values)].map((one) => one.map(cell).join(",")).join("\r\n") + "\r\n");
  };
  $("jsonl").onclick = () => save("attempts.jsonl", "application/jsonl", wanted().map((at) => JSON.stringify(record(at)) + "\n").join(""));
  addEventListener("beforeprint", () => {
    const held = wanted(), printed = held.slice(0, 100), names = Object.entries(COLUMNS);
    $("printed").replaceChildren(
      make("caption", `${number(printed.length)} of ${number(held.length)} attempts`),
      make("thead", {}, make("tr", {}, ...names.map(([, [title]]) => make("th", { scope: "col", textContent: title })))),
      make("tbody", {}, ...printed.map((at) => make("tr", {}, ...names.map(([, [, , value]]) => make("td", value(at)))))));
  });

  addEventListener("afterprint", () => $("printed").replaceChildren());

  // Controls.
  const offer = (name, values) => $("filters").elements[name].replaceChildren(
    make("option", { value: "", textContent: "all" }), ...values.map(([value, title]) => make("option", { value, textContent: title })));
  const once = (values) => [...new Set(values)].filter(Boolean).map((one) => [one, one]);
  offer("defence", once(systems.map((one) => one.title)));
  offer("attack", once(data.attacks));
  offer("category", once(data.categories.flat()).sort());
  const there = new Set(outcomes);
  offer("outcome", Object.entries(OUTCOMES).filter(([name]) => there.has(name)).map(([name, [title]]) => [name, title]));
  offer("rule", once([...new Set(rows.rules)].flatMap((place) => data.rules[place])).sort().map(([id]) => [id, ruled([id])]));
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("filters").addEventListener("input", (event) => {
    event.target.value ? (state[event.target.name] = event.target.value) : delete state[event.target.name];
    draw();
    keep();
  });
  for (const button of document.querySelectorAll("[data-look]")) {
    button.onclick = () => look(Object.fromEntries(new URLSearchParams(button.dataset.look)));
  }
  $("choose").onclick = () => { chosen.clear(); order.slice(0, Number($("first").value)).forEach((at) => chosen.add(at)); mark(); };
  $("clear").onclick = () => { chosen.clear(); mark(); };
  $("reveal")?.addEventListener("click", async () => {
    revealed = revealed ? null : await content(harmful);
    $("reveal").setAttribute("aria-pressed", String(revealed !== null));
    $("reveal").textContent = revealed ? "Hide harmful texts" : "Reveal harmful texts";
    look(state);
  });

  shown = await reading;
  lower = shown.map((one) => one.toLowerCase());
  $("transcripts-absent").hidden = true;
  $("explorer").hidden = false;
  follow();
  $("explorer").dataset.ready = "true";
}
