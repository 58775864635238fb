// Reads the answers that the page holds, keeps what is said of them in localStorage, writes and reads JSONL.
// Text of data reaches the page as textContent only.
"use strict";

const NEW_FOR = 20; // answers without a new tag after which reading on is unlikely to bring one
const data = JSON.parse(document.getElementById("data").textContent);
const byId = new Map(data.records.map((record) => [record.id, record]));
const $ = (id) => document.getElementById(id);

// coded: id -> {tags, note, read}; order: ids as they were first coded; tags: every tag, oldest first; headings: tag -> heading
let state = { coded: {}, order: [], tags: [], headings: {}, at: 0, keys: true };
let filter = "all";
let editing = null;

function load() {
  try {
    const kept = localStorage.getItem(data.key);
    if (kept) { state = { ...state, ...JSON.parse(kept) }; return; }
  } catch { warn(); }
  take(data.codes);
}

function keep() {
  try { localStorage.setItem(data.key, JSON.stringify(state)); } catch { warn(); }
}

function warn() { $("said").textContent = "This browser keeps no progress for this page: export before you close it."; }

const entry = (id) => state.coded[id] ?? { tags: [], note: "", read: false };
const done = (id) => { const one = entry(id); return one.read || one.tags.length > 0; };
const count = (tag) => data.records.filter((record) => entry(record.id).tags.includes(tag)).length;
const tidy = (text) => text.trim().replace(/\s+/g, " ");

function change(id, values) {
  state.coded[id] = { ...entry(id), ...values };
  state.order = state.order.filter((one) => one !== id || done(one));
  if (done(id) && !state.order.includes(id)) state.order.push(id);
  keep();
  draw();
}

// A tag as it is spelled here already, whatever the case it comes in.
const spelled = (name) => state.tags.find((tag) => tag.toLowerCase() === name.toLowerCase()) ?? name;

function known(text) {
  const name = spelled(tidy(text));
  if (name && !state.tags.includes(name)) state.tags.push(name);
  return name;
}

function toggle(tag, on) {
  const record = current();
  if (!record || !tag) return;
  const tags = entry(record.id).tags;
  const has = tags.includes(tag);
  if (has && on !== true) change(record.id, { tags: tags.filter((one) => one !== tag) });
  else if (!has) change(record.id, { tags: [...tags, tag], read: false });
}

function listed() {
  if (filter === "all") return data.records;
  if (filter === "open") return data.records.filter((record) => !done(record.id) || record === data.records[state.at]);
  if (filter.startsWith("rule:")) return data.records.filter((r) => r.findings.some((f) => f.tag === filter.slice(5)));
  return data.records.filter((record) => entry(record.id).tags.includes(filter.slice(4)));
}

const current = () => data.records[state.at];

function go(step) {
  const shown = listed();
  if (!shown.length) return;
  const place = shown.indexOf(current());
  const next = place < 0 ? 0 : Math.min(shown.length - 1, Math.max(0, place + step));
  state.at = data.records.indexOf(shown[next]);
  keep();
  draw();
}

function nextOpen() {
  const n = data.records.length;
  for (let i = 1; i <= n; i += 1) {
    const at = (state.at + i) % n;
    if (!done(data.records[at].id)) { state.at = at; filter = "all"; keep(); draw(); return; }
  }
}

function make(kind, values, ...children) {
  const { pressed, ...rest } = values;
  const element = Object.assign(document.createElement(kind), rest);
  if (pressed !== undefined) element.setAttribute("aria-pressed", String(pressed));
  element.append(...children);
  return element;
}

function drawAnswer() {
  const record = current();
  const shown = listed();
  const place = shown.indexOf(record);
  for (const name of ["prompt", "reference", "before", "after"]) {
    const text = record[name].trim();
    $(name).textContent = text || "(empty)";
    $(name).classList.toggle("none", !text);
  }
  const of = `row ${record.row}`;
  $("place").textContent = place < 0 ? `${of}, not among those shown` : `${place + 1} of ${shown.length}, ${of}`;
  $("previous").disabled = place === 0;
  $("next").disabled = place === shown.length - 1;
  const mine = entry(record.id);
  $("tags").replaceChildren(...mine.tags.map((tag) => make("li", {}, make("button", {
    type: "button", textContent: `${tag} ×`, ariaLabel: `take off ${tag}`, onclick: () => toggle(tag),
  }))));
  const offered = record.findings.filter((finding) => !mine.tags.includes(spelled(finding.tag)));
  $("suggested").hidden = !offered.length;
  $("suggestions").replaceChildren(...offered.map((finding) => make("li", {}, make("button", {
    type: "button", onclick: () => toggle(known(finding.tag), true),
  }, `+ ${finding.tag} `, make("span", { textContent: finding.why })))));
  if (document.activeElement !== $("note")) $("note").value = mine.note;
  $("nothing").setAttribute("aria-pressed", String(mine.read && !mine.tags.length));
}

function drawFilter() {
  const rules = [...new Set(data.records.flatMap((record) => record.findings.map((finding) => finding.tag)))];
  const options = [["all", "all answers"], ["open", "not coded yet"], ...state.tags.map((tag) => [`tag:${tag}`, tag]),
    ...rules.map((tag) => [`rule:${tag}`, `rule: ${tag}`])];
  $("filter").replaceChildren(...options.map(([value, textContent]) => make("option", { value, textContent })));
  if (!options.some(([value]) => value === filter)) filter = "all";
  $("filter").value = filter;
  $("known").replaceChildren(...state.tags.map((value) => make("option", { value })));
}

function drawCodes() {
  const counts = new Map(state.tags.map((tag) => [tag, count(tag)]));
  const most = Math.max(1, ...counts.values());
  const groups = new Map();
  for (const tag of state.tags) {
    const heading = state.headings[tag] ?? "";
    groups.set(heading, [...(groups.get(heading) ?? []), tag]);
  }
  const parts = [];
  for (const [heading, tags] of [...groups].sort((a, b) => (a[0] === "") - (b[0] === ""))) {
    if (groups.size > 1 || heading) {
      const sum = data.records.filter((r) => entry(r.id).tags.some((tag) => tags.includes(tag))).length;
      parts.push(make("h3", { className: "group", textContent: `${heading || "no heading yet"} · ${sum}` }));
    }
    parts.push(...tags.map((tag) => codeRow(tag, counts.get(tag), most)));
  }
  $("codes").replaceChildren(...parts);
}

function codeRow(tag, number, most) {
  const place = state.tags.indexOf(tag);
  const bar = make("span", { className: "bar" });
  bar.style.width = `${(100 * number) / most}%`;
  const shown = filter === `tag:${tag}`;
  const row = make("div", { className: "code" },
    place < 9 ? make("kbd", { textContent: String(place + 1) }) : make("span", {}),
    make("button", { type: "button", textContent: tag, pressed: shown, title: "show only its answers",
      onclick: () => { filter = shown ? "all" : `tag:${tag}`; if (!listed().includes(current())) go(0); draw(); } }),
    make("span", { className: "count", textContent: String(number) }),
    make("button", { type: "button", className: "more", textContent: "…", ariaLabel: `edit ${tag}`, ariaExpanded: String(editing === tag),
      onclick: () => { editing = editing === tag ? null : tag; draw(); $("edit-name")?.focus(); } }),
    bar);
  if (editing === tag) row.append(editor(tag));
  return row;
}

function editor(tag) {
  const headings = make("datalist", { id: "headings" },
    ...[...new Set(Object.values(state.headings))].map((value) => make("option", { value })));
  const name = make("input", { id: "edit-name", value: tag, maxLength: 80, onchange: () => rename(tag, name.value) });
  const heading = make("input", { value: state.headings[tag] ?? "", maxLength: 80, placeholder: "none",
    onchange: () => { state.headings[tag] = tidy(heading.value); if (!state.headings[tag]) delete state.headings[tag]; keep(); draw(); } });
  heading.setAttribute("list", "headings");
  return make("div", { className: "edit" }, make("label", {}, "name", name), make("label", {}, "heading", heading), headings,
    make("button", { type: "button", textContent: "delete this code", onclick: () => remove(tag) }));
}

function rename(tag, to) {
  const name = tidy(to);
  if (!name || name === tag) return;
  const merged = state.tags.find((one) => one !== tag && one.toLowerCase() === name.toLowerCase()) ?? name;
  state.tags = [...new Set(state.tags.map((one) => (one === tag ? merged : one)))];
  for (const one of Object.values(state.coded)) one.tags = [...new Set(one.tags.map((t) => (t === tag ? merged : t)))];
  if (state.headings[tag] && !state.headings[merged]) state.headings[merged] = state.headings[tag];
  delete state.headings[tag];
  if (filter === `tag:${tag}`) filter = `tag:${merged}`;
  editing = null;
  keep();
  draw();
}

function remove(tag) {
  const number = count(tag);
  if (number && !window.confirm(`Take "${tag}" off ${number} answers?`)) return;
  state.tags = state.tags.filter((one) => one !== tag);
  delete state.headings[tag];
  for (const one of Object.values(state.coded)) one.tags = one.tags.filter((t) => t !== tag);
  state.order = state.order.filter(done);
  editing = null;
  keep();
  draw();
}

function drawProgress() {
  const order = state.order.filter((id) => byId.has(id));
  $("progress").textContent = `${order.length} of ${data.records.length} answers coded`;
  const seen = new Set();
  let last = -1;
  order.forEach((id, i) => entry(id).tags.forEach((tag) => { if (!seen.has(tag)) { seen.add(tag); last = i; } }));
  const since = order.length - 1 - last;
  $("saturation").textContent = !order.length ? "" : since >= NEW_FOR
    ? `No new tag in the last ${since} answers: reading on is unlikely to bring another kind (saturation).`
    : `${since === 0 ? "A new tag in the last answer" : `The last new tag was ${since} answer${since > 1 ? "s" : ""} ago`}; ${NEW_FOR} without one suggest saturation.`;
}

function draw() {
  drawFilter();
  drawAnswer();
  drawCodes();
  drawProgress();
}

function lines() {
  return state.order.filter((id) => byId.has(id)).map((id) => {
    const { row, prompt, reference, before, after } = byId.get(id);
    const { tags, note } = entry(id);
    const headings = Object.fromEntries(tags.filter((tag) => state.headings[tag]).map((tag) => [tag, state.headings[tag]]));
    return { id, row, prompt, reference, before, after, tags, headings, note };
  });
}

// Adds the lines of an export: tags are united, a note is kept where there is one.
function take(found) {
  let taken = 0;
  for (const line of found) {
    if (!line || !byId.has(line.id) || !Array.isArray(line.tags)) continue;
    const tags = line.tags.filter((tag) => typeof tag === "string").map(known);
    const mine = entry(line.id);
    for (const [tag, heading] of Object.entries(line.headings ?? {})) {
      if (typeof heading === "string" && heading) state.headings[known(tag)] ??= tidy(heading);
    }
    state.coded[line.id] = { tags: [...new Set([...mine.tags, ...tags])], note: mine.note || String(line.note ?? ""), read: true };
    if (!state.order.includes(line.id)) state.order.push(line.id);
    taken += 1;
  }
  return taken;
}

$("previous").onclick = () => go(-1);
$("next").onclick = () => go(1);
$("filter").onchange = (event) => { filter = event.target.value; if (!listed().includes(current())) go(0); draw(); };
$("add").onsubmit = (event) => {
  event.preventDefault();
  toggle(known($("tag").value), true);
  $("tag").value = "";
};
$("nothing").onclick = () => {
  const mine = entry(current().id);
  change(current().id, { read: !(mine.read && !mine.tags.length), tags: [] });
};
$("note").oninput = (event) => { state.coded[current().id] = { ...entry(current().id), note: event.target.value }; keep(); };
$("keys").onchange = (event) => { state.keys = event.target.checked; keep(); };
$("export").onclick = () => {
  const blob = new Blob(lines().map((line) => `${JSON.stringify(line)}\n`), { type: "application/x-ndjson" });
  const link = make("a", { href: URL.createObjectURL(blob), download: "codes.jsonl" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  $("said").textContent = `${lines().length} answers exported.`;
};
$("import").onchange = async (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  if (!file) return;
  try {
    const found = (await file.text()).split("\n").filter((line) => line.trim()).map((line) => JSON.parse(line));
    const taken = take(found);
    $("said").textContent = `${taken} answers imported${taken < found.length ? `, ${found.length - taken} are not of this run` : ""}.`;
    keep();
    draw();
  } catch { $("said").textContent = "This file is not JSONL: one JSON object per line, as exported here."; }
};

const KEYS = {
  j: () => go(1), ArrowRight: () => go(1), k: () => go(-1), ArrowLeft: () => go(-1), u: nextOpen,
  t: () => $("tag").focus(), n: () => $("note").focus(), 0: () => $("nothing").click(),
};
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") { document.activeElement?.blur(); return; }
  const typing = event.target.closest?.("input, textarea, select");
  if (typing || !state.keys || event.ctrlKey || event.metaKey || event.altKey) return;
  const act = /^[1-9]$/.test(event.key) ? () => toggle(state.tags[Number(event.key) - 1]) : KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

load();
state.at = Math.min(state.at, data.records.length - 1);
$("keys").checked = state.keys;
draw();
