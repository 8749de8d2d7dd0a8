(() => {
  "use strict";
  const one = (query, from = document) => from.querySelector(query);
  const all = (query, from = document) => Array.from(from.querySelectorAll(query));
  const body = one(".matrix tbody");
  const rows = all("tr", body);
  const sections = all("details.case");

  /* Sorting: the headers become buttons; rows without a value stay last both ways. */
  const headers = all(".matrix thead th");
  const sortBy = one("#sort-by");
  const value = (row, column) => {
    const cell = row.cells[column];
    if (!cell) return null; /* an error's reason spans the rest of its row */
    if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
    return column > 0 && column < 4 ? cell.textContent.trim().toLowerCase() : null;
  };
  function sortRows(column, direction) {
    const sign = direction === "descending" ? -1 : 1;
    const keyed = rows.map((row, place) => ({ row, place, key: value(row, column) }));
    keyed.sort((a, b) => {
      if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.place - b.place;
      const order = typeof a.key === "number" ? a.key - b.key : a.key.localeCompare(b.key, "en", { numeric: true });
      return sign * order || a.place - b.place;
    });
    headers.forEach((header) => header.removeAttribute("aria-sort"));
    headers[column].setAttribute("aria-sort", direction);
    body.append(...keyed.map((entry) => entry.row));
    sortBy.value = String(column);
  }
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    const first = header.dataset.first || "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    button.addEventListener("click", () => sortRows(column, header.getAttribute("aria-sort") === first ? other : first));
    sortBy.add(new Option(header.textContent.replace(/\s+/g, " ").trim(), String(column)));
  });
  sortBy.add(new Option("order of the run", ""), 0);
  sortBy.value = "";
  sortBy.addEventListener("change", () => {
    if (sortBy.value) sortRows(Number(sortBy.value), headers[Number(sortBy.value)].dataset.first || "ascending");
    else body.append(...rows);
  });

  /* Filtering: table and sections together; the count is announced. */
  const form = one(".filters");
  const find = one("#find");
  const picks = { standing: one("#by-standing"), backend: one("#by-backend"), precision: one("#by-precision") };
  const shown = one("#shown");
  const texts = [];

  /* Filters are part of the address, so that a link shows what its sender saw. */
  const fields = { find, ...picks };
  function keepInAddress() {
    const address = new URL(location.href);
    Object.entries(fields).forEach(([name, field]) => {
      if (field.value) address.searchParams.set(name, field.value);
      else address.searchParams.delete(name);
    });
    if (address.href === location.href) return;
    try { history.replaceState(null, "", address); } catch { /* a page without an origin of its own has no say */ }
  }
  const asked = new URL(location.href).searchParams;
  Object.entries(fields).forEach(([name, field]) => {
    const value = asked.get(name) || "";
    if (field === find || Array.from(field.options || []).some((option) => option.value === value)) field.value = value;
  });
  function filterRows() {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    rows.forEach((row, place) => {
      if (words.length && texts[place] === undefined) {
        texts[place] = (row.textContent + " " + one("summary", sections[place]).textContent).toLowerCase();
      }
      const fits = Object.entries(picks).every(([name, pick]) => !pick.value || row.dataset[name] === pick.value
        || (pick.value === "look" && "look" in row.dataset));
      const visible = fits && words.every((word) => texts[place].includes(word));
      row.hidden = !visible;
      sections[place].hidden = !visible;
      count += visible;
    });
    keepInAddress();
    shown.textContent = count === rows.length ? `all ${count} cases` : `${count} of ${rows.length} cases`;
    all(".counts button").forEach((button) => {
      button.setAttribute("aria-pressed", String(button.dataset.standing === picks.standing.value));
    });
  }
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { body.append(...rows); headers.forEach((header) => header.removeAttribute("aria-sort")); filterRows(); }));
  form.addEventListener("input", (event) => { if (event.target !== sortBy) filterRows(); });
  all(".counts li").forEach((item) => {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.standing = item.dataset.standing;
    button.title = item.title;
    button.className = one(".tag", item).className;
    button.append(...one(".tag", item).childNodes);
    item.replaceChildren(button);
    button.addEventListener("click", () => {
      picks.standing.value = picks.standing.value === item.dataset.standing ? "" : item.dataset.standing;
      filterRows();
      if (picks.standing.value) one("#cases").scrollIntoView();
    });
  });
  filterRows();

  /* A link to a case opens its section, also when a filter hides it. */
  async function openTarget() {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const section = target && target.closest("details.case");
    if (!section) return;
    section.hidden = false;
    await complete(section);
    section.open = true;
    section.scrollIntoView();
  }
  addEventListener("hashchange", openTarget);
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#case-"]');
    if (link && link.hash === location.hash) openTarget();
  });

  /* "/" goes to the search box, as in most tables of results. */
  addEventListener("keydown", (event) => {
    if (event.key === "/" && !event.target.closest("input, select, textarea")) { event.preventDefault(); find.focus(); }
  });

  /* Most sections of a long run are kept deflated until they are opened: their nodes alone would take a second. */
  let stored = null;
  async function unpack() {
    const bytes = Uint8Array.from(atob(one("#stored").textContent), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  }
  async function complete(section) {
    const part = section && one(".body[data-stored]", section);
    if (!part) return;
    stored = stored || unpack();
    const sections = await stored;
    if (!part.hasAttribute("data-stored")) return;
    part.removeAttribute("data-stored");
    part.innerHTML = sections[part.id]; /* escaped by the template that wrote it */
    addCopyButtons(part);
  }
  document.addEventListener("toggle", (event) => { if (event.target.open) complete(event.target); }, true);

  function addCopyButtons(from) {
    all(".command", from).forEach((box) => {
      if (one("button", box)) return;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = "Copy";
      button.setAttribute("aria-label", "Copy the command");
      box.append(button);
    });
  }
  addCopyButtons(document);
  document.addEventListener("click", async (event) => {
    const button = event.target.closest(".command button");
    if (!button) return;
    const code = one("code", button.parentNode);
    getSelection().selectAllChildren(code);
    let done = false;
    try { await navigator.clipboard.writeText(code.textContent); done = true; } catch { done = document.execCommand("copy"); }
    button.textContent = done ? "Copied" : "Press Ctrl+C";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  openTarget();
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
})();
