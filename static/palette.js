// The palette: what the search field's text means, as it is typed. app.js loads it when the field gets the focus.
// Without this script, the field's form opens the search page, which shows the same. The pattern is ARIA's combobox with
// a list; the server makes the options.
"use strict";

(() => {
  const field = document.getElementById("q");
  const popup = document.getElementById("palette");
  if (!field || !popup) return;
  const list = document.getElementById("palette-list");
  const status = document.getElementById("palette-s");
  const form = field.form;
  const WAIT_MS = 120; // after the last key
  const SLOW_MS = 300;
  const RECENT = 6;
  const KEPT = "recent:" + home;
  let asked = null; // the request that is under way; there is one at a time
  let shownFor = null; // the text that the list belongs to
  let due = null;
  let wantsFirst = false; // Enter came before the results

  field.setAttribute("role", "combobox");
  field.setAttribute("aria-autocomplete", "list");
  field.setAttribute("aria-controls", "palette-list");
  field.setAttribute("aria-expanded", "false");

  const options = () => [...list.querySelectorAll("[role=option]")];
  const active = () => list.querySelector("[aria-selected=true]");
  const isOpen = () => !popup.hidden;

  function say(text, isError = false) {
    status.textContent = text;
    status.hidden = !text;
    status.classList.toggle("t-error", isError);
  }

  function open() {
    popup.hidden = false;
    field.setAttribute("aria-expanded", String(options().length > 0));
  }

  function close() {
    popup.hidden = true;
    clearTimeout(due);
    wantsFirst = false;
    field.setAttribute("aria-expanded", "false");
    field.removeAttribute("aria-activedescendant");
  }

  function choose(option) {
    const before = active();
    if (before) before.setAttribute("aria-selected", "false");
    if (!option) {
      field.removeAttribute("aria-activedescendant");
      return;
    }
    option.setAttribute("aria-selected", "true");
    field.setAttribute("aria-activedescendant", option.id);
    option.scrollIntoView({ block: "nearest" });
  }

  function show(text) {
    shownFor = text;
    field.setAttribute("aria-expanded", String(options().length > 0));
    choose(options()[0]);
  }

  // Recent: kept in this browser only ------------------------------------------------------------------------

  function recent() {
    try {
      const kept = JSON.parse(localStorage.getItem(KEPT) || "[]");
      return kept.filter((one) => typeof one.url === "string" && one.url.startsWith(home)).slice(0, RECENT);
    } catch {
      return [];
    }
  }

  function remember(option) {
    if (option.dataset.do !== "go") return;
    const one = {
      url: option.dataset.url,
      icon: option.dataset.icon,
      name: option.querySelector(".palette-n").textContent,
      detail: option.querySelector(".palette-d").textContent,
    };
    const others = recent().filter((kept) => kept.url !== one.url);
    try {
      localStorage.setItem(KEPT, JSON.stringify([one, ...others].slice(0, RECENT)));
    } catch {
      // a browser that keeps nothing has no recent ones
    }
  }

  function showRecent() {
    list.replaceChildren();
    const group = document.createElement("div");
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", "Recent");
    const title = document.createElement("div");
    title.className = "palette-k";
    title.textContent = "Recent";
    group.append(title);
    recent().forEach((one, number) => {
      const option = document.createElement("div");
      option.id = `pr-${number}`;
      option.setAttribute("role", "option");
      option.setAttribute("aria-selected", "false");
      Object.assign(option.dataset, { do: "go", url: one.url, icon: one.icon });
      const icon = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      icon.setAttribute("class", "i");
      icon.setAttribute("aria-hidden", "true");
      const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
      use.setAttribute("href", `#${/^i-[a-z0-9-]+$/.test(one.icon) ? one.icon : "i-clock"}`);
      icon.append(use);
      const name = document.createElement("span");
      name.className = "palette-n";
      name.textContent = one.name;
      const detail = document.createElement("span");
      detail.className = "palette-d";
      detail.textContent = one.detail;
      option.append(icon, " ", name, " ", detail);
      group.append(option);
    });
    if (group.childElementCount > 1) list.append(group);
    say(group.childElementCount > 1 ? "" : "Type an id, a name, a page or an action.");
    show("");
  }

  // Results --------------------------------------------------------------------------------------------------

  function type() {
    clearTimeout(due);
    const text = field.value.trim();
    open();
    if (!text) {
      if (asked) asked.abort();
      showRecent();
      return;
    }
    due = setTimeout(() => ask(text), WAIT_MS);
  }

  async function ask(text) {
    if (asked) asked.abort();
    const mine = new AbortController();
    asked = mine;
    const slow = setTimeout(() => say("Searching…"), SLOW_MS);
    try {
      const address = `${form.action}?${new URLSearchParams({ q: text })}`;
      const answer = await fetch(address, {
        headers: { "HX-Request": "true", "HX-Target": "palette-list" },
        signal: mine.signal,
      });
      if (answer.redirected || !answer.ok) throw new Error(String(answer.status));
      const html = await answer.text();
      if (mine !== asked) return;
      list.innerHTML = html;
      const count = options().length;
      say(count ? "" : `No results for "${text}".`);
      if (count) announce(`${count} result${count === 1 ? "" : "s"}`);
      show(text);
    } catch (error) {
      if (error.name === "AbortError" || mine !== asked) return;
      list.replaceChildren();
      say("The search does not answer. Enter opens the search page.", true);
      show(null);
    } finally {
      clearTimeout(slow);
      if (mine === asked) asked = null;
    }
    if (wantsFirst && mine.signal.aborted === false) run(options()[0]);
  }

  function run(option) {
    wantsFirst = false;
    if (!option) {
      form.submit();
      return;
    }
    remember(option);
    const { url } = option.dataset;
    if (option.dataset.do === "go") {
      close();
      location.href = url;
      return;
    }
    const act = document.createElement("form");
    act.action = url;
    act.hidden = true;
    document.body.append(act);
    close();
    field.value = "";
    if (option.dataset.do === "ask") {
      act.method = "get";
      window.ask(act); // the dialog of app.js
      act.remove();
      return;
    }
    act.method = "post";
    const fields = JSON.parse(option.dataset.fields || "{}");
    fields.csrfmiddlewaretoken = document.querySelector("input[name=csrfmiddlewaretoken]").value;
    for (const [name, value] of Object.entries(fields)) {
      const input = document.createElement("input");
      Object.assign(input, { type: "hidden", name, value });
      act.append(input);
    }
    act.requestSubmit();
  }

  // Events ---------------------------------------------------------------------------------------------------

  field.addEventListener("input", type);
  field.addEventListener("focus", () => {
    if (shownFor !== field.value.trim() || !field.value) type();
    else open();
  });
  field.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    const all = options();
    switch (event.key) {
      case "ArrowDown":
      case "ArrowUp": {
        event.preventDefault();
        if (!isOpen()) {
          type();
          return;
        }
        if (!all.length) return;
        const step = event.key === "ArrowDown" ? 1 : -1;
        choose(all[(all.indexOf(active()) + step + all.length) % all.length]);
        return;
      }
      case "Enter":
        if (!field.value.trim() && !active()) return;
        event.preventDefault();
        if (shownFor === field.value.trim()) run(active());
        else if (status.classList.contains("t-error")) run(null);
        else {
          wantsFirst = true;
          clearTimeout(due);
          ask(field.value.trim());
        }
        return;
      case "Escape":
        if (isOpen()) {
          event.preventDefault();
          close();
        } else field.value = "";
        return;
      case "Tab":
        close();
    }
  });
  list.addEventListener("mousemove", (event) => {
    const option = event.target.closest("[role=option]");
    if (option && option !== active()) choose(option);
  });
  popup.addEventListener("mousedown", (event) => event.preventDefault()); // the field keeps the focus
  list.addEventListener("click", (event) => {
    const option = event.target.closest("[role=option]");
    if (option) run(option);
  });
  document.addEventListener("click", (event) => {
    if (isOpen() && !popup.contains(event.target) && !form.contains(event.target)) close();
  });
  field.addEventListener("blur", close);

  // What happened while this was loaded.
  window.searchPalette = {
    begin(wantsResult) {
      if (document.activeElement !== field) return;
      type();
      if (!wantsResult) return;
      wantsFirst = true;
      clearTimeout(due);
      ask(field.value.trim());
    },
  };
})();
