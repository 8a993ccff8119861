// The shell of every page: the connection and its pill, refreshing what has changed, dialogs, toasts, times, keys.
// What a page shows is HTML from the server; htmx asks for it again and idiomorph keeps focus, scroll and open rows.
"use strict";

const home = document.body.dataset.home; // "/", or the path that the proxy serves us below
const main = () => document.getElementById("main");
const isLive = () => Boolean(main()?.hasAttribute("hx-get")); // a form is not refreshed, so never stale
const announce = (text) => {
  document.getElementById("announce").textContent = text;
};

// Connection ------------------------------------------------------------------------------------------

const STATES = {
  live: ["t-ok", "s-ok", "Live"],
  polling: ["t-ok", "s-ok", "Live, polling"],
  waiting: ["t-warn", "s-busy", "Reconnecting"],
  offline: ["t-error", "s-error", "Offline"],
  paused: ["t-idle", "s-idle", "Paused"],
  gone: ["t-warn", "s-warn", "Gone"],
};
let failures = 0;
let lostAt = null;
let socket = null;
let polling = null;
let isPaused = false;
let isGone = false;
let missed = 0;

function show(state, words) {
  if (isGone) state = "gone";
  const pill = document.getElementById("conn");
  if (!pill) return;
  const [tone, shape, label] = STATES[state];
  pill.className = `conn ${tone}`;
  pill.querySelector("use").setAttribute("href", `#${shape}`);
  pill.querySelector("span").textContent = words || label;
  pill.title = words || label;
}

function connect() {
  if (!isLive()) {
    document.getElementById("conn")?.setAttribute("hidden", ""); // nothing arrives at a form
    return;
  }
  const filters = main().dataset.events || "";
  const address = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${home}ws/events${filters && `?${filters}`}`;
  socket = new WebSocket(address);
  socket.onopen = () => {
    failures = 0;
    lostAt = null;
    clearInterval(polling);
    polling = null;
    show(isPaused ? "paused" : "live");
    refresh(); // what happened while there was no socket
    document.dispatchEvent(new CustomEvent("bh:socket", { detail: true }));
  };
  socket.onmessage = (event) => {
    if (event.data.startsWith('{"log"'))
      document.dispatchEvent(new CustomEvent("bh:log", { detail: JSON.parse(event.data) }));
    else touch(JSON.parse(event.data).type);
  };
  socket.onclose = (event) => {
    document.dispatchEvent(new CustomEvent("bh:socket", { detail: false }));
    if (event.code === 4401) {
      location.reload();
      return;
    }
    failures += 1;
    lostAt = lostAt || new Date();
    if (failures >= 2) showLoss();
    // A server that restarts lets connections wait: there is no second failure then.
    else
      setTimeout(() => {
        if (lostAt) showLoss();
      }, 1500);
    if (failures >= 3 && !polling) polling = setInterval(() => refresh(), 5000);
    setTimeout(connect, Math.min(30000, 500 * 2 ** failures) * (0.5 + Math.random()));
  };
}

// What else a page follows comes over the same connection: a browser opens few to a server, for all of its tabs.
window.pageSocket = {
  send(message) {
    if (socket?.readyState !== 1) return false;
    socket.send(JSON.stringify(message));
    return true;
  },
};

function showLoss() {
  if (polling && document.body.dataset.polled === "ok") {
    show("polling");
    return;
  }
  const since = lostAt.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
  if (Date.now() - lostAt > 10000) show("offline", `Offline since ${since}`);
  else show("waiting");
}

// Refreshing ------------------------------------------------------------------------------------------

const EVERY_MS = 400;
const SYNC_MS = 2000; // transfers tell of every step, and most of them at once
const SAFETY_MS = 10000;
let seenAt = Date.now();
let checkedAt = 0; // when all sections were asked for
let timer = null;
const due = new Map(); // id of a section: when it is asked for
const asked = new Map(); // id of a section: when it was
const asking = new Set(); // sections of the next request
let awaited = new Set(); // those of the request under way

// What is asked for by itself: the navigation, each section, and the page without its sections.
const sections = () => document.querySelectorAll("[data-etag]");

// Which events change a section stands at it, otherwise at the page. Words are types of events or their first parts.
function isChangedBy(section, type) {
  const words = (section.dataset.on ?? main().dataset.on ?? "*").split(" ");
  return words.some((word) => word === "*" || type === word || type.startsWith(`${word}.`));
}

function touch(type) {
  if (type === "reset" || type === "error") return refresh();
  const changed = [...sections()].filter((section) => isChangedBy(section, type));
  if (changed.length) schedule(changed, /^sync\.|^pool\.pulling$/.test(type) ? SYNC_MS : EVERY_MS);
}

function refresh() {
  schedule(sections(), EVERY_MS);
}

function schedule(changed, pause) {
  if (isPaused) {
    missed += 1;
    show("paused", `Paused, ${missed} update${missed === 1 ? "" : "s"}`);
    return;
  }
  if (isGone || !main()) return;
  for (const { id } of changed) {
    const at = Math.max(Date.now(), (asked.get(id) || 0) + pause);
    due.set(id, Math.min(at, due.get(id) ?? at));
  }
  if (!due.size) return;
  clearTimeout(timer);
  timer = setTimeout(requestDue, Math.max(0, Math.min(...due.values()) - Date.now()));
}

// Sections that are due soon join those that are due now.
function requestDue() {
  if (document.hidden || isPaused) {
    due.clear(); // all of them, once the page is seen
    return;
  }
  const now = Date.now();
  for (const [id, at] of due) {
    if (at > now + EVERY_MS) continue;
    due.delete(id);
    asked.set(id, now);
    asking.add(id);
  }
  if (due.size) timer = setTimeout(requestDue, Math.min(...due.values()) - now);
  if ([...sections()].every(({ id }) => asking.has(id))) checkedAt = now;
  htmx.trigger(main(), "bh:refresh");
}

// The server sends what differs from these digests, and nothing of the sections that no event has touched.
document.addEventListener("htmx:configRequest", (event) => {
  if (event.detail.elt.id !== "main") return;
  const here = [...sections()];
  event.detail.headers["If-None-Match"] = `"${here.map((one) => one.dataset.etag).join(".")}"`;
  const untouched = here.filter(({ id }) => !asking.has(id)).map(({ id }) => id);
  if (untouched.length) event.detail.headers["BH-Untouched"] = untouched.join(" ");
  awaited = new Set(asking);
  asking.clear();
});
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.xhr.status === 304) event.detail.shouldSwap = false;
});

setInterval(() => {
  if (!isPaused && Date.now() - checkedAt > SAFETY_MS) refresh();
  for (const card of document.querySelectorAll(".card")) {
    card.classList.toggle("stale", isLive() && !isPaused && !document.hidden && Date.now() - seenAt > 3 * SAFETY_MS);
  }
  if (lostAt && failures >= 2) showLoss();
}, 1000);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refresh();
});

let slow = null; // what is asked for takes long: the cards say so, and keep what they show
document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.detail.elt.id === "main") slow = setTimeout(() => busy(true), 300);
});

function busy(isOn) {
  for (const card of document.querySelectorAll("#main > .card, #main .cols .card"))
    if (isOn) card.setAttribute("aria-busy", "true");
    else card.removeAttribute("aria-busy");
}

document.addEventListener("htmx:afterRequest", (event) => {
  if (event.detail.elt !== main() && event.detail.elt.id !== "main") return;
  clearTimeout(slow);
  busy(false);
  if (event.detail.successful) {
    seenAt = Date.now();
    document.body.dataset.polled = "ok";
    readAt(event.detail.xhr.getResponseHeader("Date"));
  } else document.body.dataset.polled = "";
});

// A section that is answered shows the state of now, whether or not it has changed.
function readAt(date) {
  const at = new Date(date || Date.now()).toISOString();
  for (const time of document.querySelectorAll("time[data-as-of]")) {
    if (!awaited.has(time.closest("[data-etag]")?.id)) continue;
    time.dateTime = at;
    time.title = `${at.slice(0, 10)} ${at.slice(11, 19)} UTC`;
    time.textContent = at.slice(11, 19);
    delete time.dataset.local;
  }
  inZone();
}

document.addEventListener("htmx:responseError", (event) => {
  if (event.detail.elt.id !== "main" || event.detail.xhr.status !== 404 || isGone) return;
  isGone = true;
  show("gone");
  const note = document.createElement("div");
  note.className = "note t-warn";
  note.setAttribute("role", "alert");
  note.innerHTML = '<svg class="s" aria-hidden="true"><use href="#s-warn"/></svg><p></p>';
  note.querySelector("p").textContent = "This no longer exists. The page shows its last state.";
  main().prepend(note);
  for (const button of main().querySelectorAll("form button")) button.disabled = true;
});
// A part that is loaded by itself says when that takes long, and when it failed.
document.addEventListener("htmx:beforeRequest", (event) => {
  const part = event.detail.target?.closest?.("[data-part]");
  if (part) part.closest(".card").setAttribute("aria-busy", "true");
});
document.addEventListener("htmx:afterRequest", (event) => {
  const part = event.detail.target?.closest?.("[data-part]");
  if (!part) return;
  part.closest(".card").removeAttribute("aria-busy");
  if (event.detail.successful) return;
  part.innerHTML =
    '<div class="card-b"><p class="note t-error" role="alert"><svg class="s" aria-hidden="true"><use href="#s-error"/></svg><span></span></p></div>';
  const why = event.detail.xhr?.status ? `The server answered ${event.detail.xhr.status}.` : "No answer.";
  part.querySelector("span").textContent = `This part could not be loaded. ${why} Reload it to try again.`;
});
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.target?.closest?.("[data-part]") && /^\s*<!doctype/i.test(event.detail.xhr.responseText)) {
    event.detail.shouldSwap = false; // the login page
    location.reload();
  }
  // Signed out meanwhile: the login page must not be put into this one.
  if (
    event.detail.elt.id === "main" &&
    event.detail.xhr.status < 300 &&
    !event.detail.xhr.responseText.includes("data-etag")
  ) {
    event.detail.shouldSwap = false;
    location.href = event.detail.xhr.responseURL; // the login page, which says why
  }
});
document.addEventListener("htmx:afterSettle", settle);

function settle() {
  const here = main();
  if (!here) return;
  const alerts = Number(here.dataset.alert || 0);
  if (here.dataset.title)
    document.title = `${alerts ? `(${alerts}!) ` : ""}${here.dataset.title} · Boilerhouse`;
  const icon = document.getElementById("favicon");
  const wanted = alerts ? icon.dataset.alert : icon.dataset.ok;
  if (icon.getAttribute("href") !== wanted) icon.setAttribute("href", wanted);
  for (const form of document.querySelectorAll("[data-pick]")) countPicked(form);
  tick();
  inZone();
}

const FLASH_MS = 1400;

if (window.Idiomorph) {
  Object.assign(Idiomorph.defaults.callbacks, {
    beforeNodeMorphed(old, fresh) {
      if (old.nodeType !== 1) return true;
      if (fresh.hasAttribute?.("data-same")) return false; // the server says that it has not changed
      if (old.hasAttribute("data-keep")) return false; // what is being typed or read stays
      if (old.hasAttribute("data-count")) return false; // the server knows of no selection
      if (old.matches("time[data-local]") && fresh.dateTime === old.dateTime) return false;
      if (window.charts && old.matches(".plot[data-chart]") && charts.has(old)) {
        if (fresh.dataset && fresh.dataset.chart) charts.update(old, fresh.dataset.chart);
        return false;
      }
      if (old.matches("[data-feed]") && holds(old, fresh)) return false;
      if (old.matches("tr[data-v], article[data-v]") && fresh.dataset && old.dataset.v !== fresh.dataset.v) {
        fresh.classList.add("flash");
        setTimeout(() => old.classList.remove("flash"), FLASH_MS);
      }
      return true;
    },
    beforeAttributeUpdated(name, node) {
      if (name === "open" && node.matches("details, dialog")) return false;
      if (name === "checked" && node.closest("[data-pick]")) return false;
      if (name === "hidden" && node.matches(".bulk")) return false;
      if (name === "class" && node.id === "conn") return false;
      if (name === "class" && node.classList.contains("flash")) return false; // the next refresh would cut it short
      return true;
    },
  });
}

// A feed that is read does not move: what is new is counted until the reader asks for it, or leaves.
function holds(feed, fresh) {
  const isRead = feed.matches(":hover") || feed.contains(document.activeElement);
  const known = new Set([...feed.querySelectorAll("[data-e]")].map((row) => row.dataset.e));
  const count = [...(fresh.querySelectorAll?.("[data-e]") || [])].filter((row) => !known.has(row.dataset.e)).length;
  if (!isRead || !count || !known.size || "shown" in feed.dataset) return false;
  const button = feed.querySelector("[data-show-feed]");
  button.textContent = `${count} update${count === 1 ? "" : "s"}, show`;
  button.hidden = false;
  feed.closest("[data-etag]").dataset.etag = ""; // what is held back is asked for again
  return true;
}

// Times -----------------------------------------------------------------------------------------------

const UNITS = [
  ["d", 86400],
  ["h", 3600],
  ["min", 60],
  ["s", 1],
];

function words(seconds) {
  const past = Math.max(1, Math.round(seconds));
  const [unit, size] = UNITS.find(([, one]) => past >= one) || UNITS[3];
  return `${Math.floor(past / size)} ${unit}`;
}

function relative(seconds) {
  if (Math.abs(seconds) < 2) return "just now";
  return seconds < 0 ? `in ${words(-seconds)}` : `${words(seconds)} ago`;
}

function tick() {
  for (const time of document.querySelectorAll("time[data-rel]")) {
    const seconds = (Date.now() - new Date(time.dateTime)) / 1000;
    const text = time.dataset.rel === "ago" ? relative(seconds) : words(seconds);
    if (time.textContent !== text) time.textContent = text;
  }
}
setInterval(tick, 5000);

try {
  // The server says days and takes ranges in the reader's zone, once local times are chosen.
  const { timeZone } = Intl.DateTimeFormat().resolvedOptions();
  const path = home.replace(/(.)\/$/, "$1"); // as the server writes it for its own
  const secure = location.protocol === "https:" ? "; secure" : "";
  document.cookie = `zone=${timeZone}; path=${path}; max-age=31536000; samesite=lax${secure}`;
} catch {
  /* no zone: UTC */
}

const CLOCKS = {
  minute: { hour12: false, hour: "2-digit", minute: "2-digit" },
  day: { hour12: false, day: "2-digit", month: "short", hour: "2-digit", minute: "2-digit" },
};

function inZone() {
  // what the server writes is UTC
  if (document.body.dataset.times !== "local") return;
  for (const time of document.querySelectorAll("time[data-clock]:not([data-local])")) {
    const at = new Date(time.dateTime);
    const clock = time.dataset.clock;
    time.textContent =
      clock === "date"
      ? at.toLocaleString([], { hour12: false })
      : at.toLocaleTimeString([], CLOCKS[clock] || { hour12: false });
    time.title = `${at.toLocaleString()} (${time.title})`;
    time.dataset.local = "";
  }
  for (const zone of document.querySelectorAll("[data-zone]")) zone.textContent = "local time";
}

// What a click does -----------------------------------------------------------------------------------

// The menu of small screens closes as menus do.
document.addEventListener("click", (event) => {
  const menu = document.querySelector(".nav-more[open]");
  if (menu && !menu.contains(event.target)) menu.open = false;
});
document.addEventListener("keydown", (event) => {
  const menu = event.key === "Escape" && document.querySelector(".nav-more[open]");
  if (!menu) return;
  menu.open = false;
  menu.querySelector("summary").focus();
});

const hasCommands = "command" in HTMLButtonElement.prototype;
document.addEventListener("click", (event) => {
  const button = event.target.closest("button, a");
  if (!button) return;
  if (!hasCommands && button.hasAttribute("commandfor")) {
    const dialog = document.getElementById(button.getAttribute("commandfor"));
    if (button.getAttribute("command") === "show-modal") dialog.showModal();
    else dialog.close();
  }
  if (button.hasAttribute("data-show-feed")) {
    button.parentElement.dataset.shown = "";
    refresh();
  }
  if (button.hasAttribute("data-close")) button.closest(".toast").remove();
  if (button.dataset.copy !== undefined) copy(button);
  if (button.dataset.step) {
    const input = document.getElementById(button.dataset.for);
    input.value = String(Math.max(0, (Number(input.value) || 0) + Number(button.dataset.step)));
    input.dispatchEvent(new Event("input", { bubbles: true }));
  }
  if (button.id === "pause") {
    isPaused = !isPaused;
    missed = 0;
    button.querySelector("use").setAttribute("href", isPaused ? "#i-play" : "#i-pause");
    button.querySelector("span").textContent = isPaused ? "Resume updates" : "Pause updates";
    show(isPaused ? "paused" : socket && socket.readyState === 1 ? "live" : "waiting");
    if (!isPaused) refresh();
  }
});

async function copy(button) {
  const isCopied = await toClipboard(button.dataset.copy);
  button.focus();
  if (isCopied) {
    announce("Copied");
    showCopied(button);
    return;
  }
  const shown = button.previousElementSibling;
  if (shown) getSelection().selectAllChildren(shown);
  tell(`The browser does not allow copying.${shown ? " The text is selected: press Ctrl C." : ""}`);
}

async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    /* pages without TLS have no clipboard, and older ways work there */
  }
  const place = document.createElement("textarea");
  place.className = "vh";
  place.value = text;
  (document.querySelector("dialog[open]") ?? document.body).append(place); // all else cannot have the focus
  place.select();
  const isCopied = document.execCommand("copy");
  place.remove();
  return isCopied;
}

const COPIED_MS = 1500;

function showCopied(button) {
  const mark = button.querySelector("use");
  if (!mark) return;
  const before = mark.getAttribute("href");
  if (before === "#i-check") return;
  mark.setAttribute("href", "#i-check");
  setTimeout(() => mark.setAttribute("href", before), COPIED_MS);
}

document.addEventListener("input", (event) => {
  const typed = event.target.closest("[data-typed]");
  if (typed)
    typed.closest("form").querySelector("[type=submit]").disabled = typed.value !== typed.dataset.typed;
});
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-submit]")) event.target.form.requestSubmit();
  if (event.target.matches("[data-reload]")) {
    // another value shows other fields; nothing is saved
    const form = event.target.form;
    const wish = document.createElement("input");
    Object.assign(wish, { type: "hidden", name: "do", value: "tab:form" });
    form.append(wish);
    form.submit();
  }
  const form = event.target.closest("[data-pick]");
  if (!form) return;
  if (event.target.matches("[data-all]")) {
    for (const one of form.querySelectorAll("input[name=id]")) one.checked = event.target.checked;
  }
  countPicked(form);
});

function countPicked(form) {
  const all = form.querySelector("input[name=all]:checked");
  const picked = form.querySelectorAll("input[name=id]:checked").length;
  const count = picked && all ? Number(all.dataset.total) : picked;
  const bar = form.querySelector(".bulk");
  if (!bar) return;
  bar.hidden = count === 0;
  for (const place of form.querySelectorAll("[data-count]")) place.textContent = String(count);
}

// A part of the page over all of it. The body says which, because a refresh does not touch the body.
window.fullScreen = (button, name) => {
  const set = (isOn) => {
    button.setAttribute("aria-pressed", String(isOn));
    if (isOn) document.body.dataset.full = name;
    else delete document.body.dataset.full;
    dispatchEvent(new Event("resize"));
  };
  button.hidden = false;
  button.addEventListener("click", () => set(button.getAttribute("aria-pressed") !== "true"));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && document.body.dataset.full === name && !document.querySelector("dialog[open]"))
      set(false);
  });
};

// Questions: asked for when they are needed, because a text that came with the page tells of an earlier state.

async function ask(form, button) {
  if (button?.getAttribute("aria-busy") === "true") return; // it is asking already
  const own = button?.getAttribute("formaction"); // an action on one row of the form
  const url = new URL(own || form.getAttribute("action"), location.href);
  if (!own) url.search = new URLSearchParams(new FormData(form, button)).toString();
  button?.setAttribute("aria-busy", "true");
  let answer;
  let text;
  try {
    answer = await fetch(url, { headers: { "HX-Request": "true", "HX-Target": "question" } });
    text = await answer.text();
  } catch {
    tell("The server cannot be reached. Nothing was done.");
    return;
  } finally {
    button?.removeAttribute("aria-busy");
  }
  if (answer.redirected || !text.includes('id="question-form"')) {
    location.href = answer.redirected ? answer.url : url;
    return;
  }
  const dialog = document.getElementById("question");
  dialog.innerHTML = text;
  guardTyped(dialog);
  if (!dialog.open) dialog.showModal();
}

// An error that no page of the server says.
function tell(text) {
  const toast = document.createElement("div");
  toast.className = "toast t-error";
  toast.setAttribute("role", "alert");
  toast.innerHTML =
    '<svg class="s" aria-hidden="true"><use href="#s-error"/></svg><div><p class="said"></p></div>' +
    '<button class="btn sm quiet" type="button" data-close>Close</button>';
  toast.querySelector(".said").textContent = text;
  document.getElementById("toasts").append(toast);
}

// Without scripts the server checks alone.
function guardTyped(place) {
  for (const typed of place.querySelectorAll("[data-typed]"))
    typed.closest("form").querySelector("[type=submit]").disabled = typed.value !== typed.dataset.typed;
}

document.addEventListener("submit", (event) => {
  if (event.target.hasAttribute("data-ask")) {
    event.preventDefault();
    document.querySelector(".menu:popover-open")?.hidePopover();
    ask(event.target, event.submitter);
    return;
  }
  if (event.target.method !== "get")
    sessionStorage.setItem(
      "place",
      JSON.stringify([location.pathname + location.search, scrollY, Date.now()]),
    );
  for (const button of event.target.querySelectorAll("[type=submit]")) {
    if (event.target.method !== "get")
      setTimeout(() => {
        button.setAttribute("aria-busy", "true");
        button.disabled = true;
      }, 0);
  }
});
addEventListener("pageshow", (event) => {
  // Back brings the address of an earlier list, and some browsers what was typed later: the address is right.
  for (const form of document.querySelectorAll("form[method=get][data-keep]")) form.reset();
  if (!event.persisted) return;
  for (const button of document.querySelectorAll("[aria-busy=true]")) {
    button.removeAttribute("aria-busy");
    button.disabled = false;
  }
});

for (const toast of document.querySelectorAll(".toast[data-toast=success]")) {
  let leaves = setTimeout(() => toast.remove(), 5000);
  toast.addEventListener("mouseenter", () => clearTimeout(leaves));
  toast.addEventListener("mouseleave", () => {
    leaves = setTimeout(() => toast.remove(), 2000);
  });
}

// What few visits need is loaded when it is needed: a style sheet, and scripts in their order.
function loadFiles(style, ...scripts) {
  const elements = [
    Object.assign(document.createElement("link"), { rel: "stylesheet", href: style }),
    ...scripts.map((src) => Object.assign(document.createElement("script"), { src, async: false })),
  ];
  const loads = (element) =>
    new Promise((done, failed) => {
      Object.assign(element, { onload: done, onerror: failed });
      document.head.append(element);
    });
  return Promise.all(elements.map(loads));
}

// Charts: the server's SVG, its words and its table stay until somebody points at one.
const chartFiles = document.querySelector("meta[name=charts]")?.dataset;
let chartsLoad = null; // a promise, once it was asked for

async function loadCharts(event) {
  if (chartsLoad || !event.target.closest?.(".plot[data-chart]")) return;
  chartsLoad = loadFiles(chartFiles.style, chartFiles.library, chartFiles.script);
  try {
    await chartsLoad;
    window.charts.begin(event);
  } catch {
    chartsLoad = null; // the next time
  }
}
if (chartFiles)
  for (const type of ["pointerover", "pointerdown"]) document.addEventListener(type, loadCharts, { passive: true });

// The palette is loaded with the focus on the search field. Enter waits for it; where it cannot be loaded, the field's
// form opens the search page.
const searchField = document.getElementById("q");
let paletteLoads = null; // a promise, once it was asked for
let wantsResult = false; // Enter came before the palette

async function loadPalette() {
  if (paletteLoads) return;
  const { style, script } = document.getElementById("palette").dataset;
  paletteLoads = loadFiles(style, script);
  try {
    await paletteLoads;
    window.searchPalette.begin(wantsResult);
  } catch {
    paletteLoads = null; // the next time
    if (wantsResult) searchField.form.submit();
  }
}

if (searchField) {
  searchField.addEventListener("focus", loadPalette);
  searchField.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.isComposing || window.searchPalette || !searchField.value.trim()) return;
    if (!paletteLoads) return;
    event.preventDefault();
    wantsResult = true;
  });
  if (document.activeElement === searchField) loadPalette();
}

// Keys: off inside fields; `?` shows them -----------------------------------------------------------------

const PLACES = { o: "", p: "pools/", t: "tenants/", s: "sync/", w: "workloads/", a: "activity/" };
let goes = false;
document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "k") {
    event.preventDefault();
    searchField.focus();
    return;
  }
  if (
    event.ctrlKey ||
    event.metaKey ||
    event.altKey ||
    event.target.closest("input, textarea, select, [contenteditable], dialog[open]")
  )
    return;
  if (localStorage.getItem("keys") === "off") return;
  if (event.key === "?") {
    document.getElementById("keys").showModal();
    return;
  }
  if (event.key === "j" || event.key === "k") {
    step(event.key === "j" ? 1 : -1);
    return;
  }
  if (event.key === "/") {
    event.preventDefault();
    (document.getElementById("f-q") || searchField).focus();
  } else if (goes && event.key in PLACES) location.href = home + PLACES[event.key];
  goes = event.key === "g";
});

function step(by) {
  // from row to row by what each row links to first
  const rows = [...document.querySelectorAll("#main tbody tr, #main .feed > li")]
    .map((row) => row.querySelector("a"))
    .filter((link) => link && link.offsetParent);
  if (!rows.length) return;
  const here = rows.findIndex((link) => link.closest("tr, li").contains(document.activeElement));
  rows[Math.min(rows.length - 1, Math.max(0, here + by))].focus();
}

const keysOn = document.getElementById("keys-on");
if (keysOn) {
  keysOn.checked = localStorage.getItem("keys") !== "off";
  keysOn.addEventListener("change", () => localStorage.setItem("keys", keysOn.checked ? "on" : "off"));
}

// Whoever acts stays where they were.
try {
  const [path, y, at] = JSON.parse(sessionStorage.getItem("place") || "[]");
  sessionStorage.removeItem("place");
  if (path === location.pathname + location.search && Date.now() - at < 15000) scrollTo(0, y);
} catch {
  /* somebody else's entry */
}

guardTyped(document);
settle();
connect();
