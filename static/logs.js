// The log of a container: searched while it grows, followed unless somebody reads further up. It keeps many lines in
// memory and few in the page. Without scripts the server shows the same lines, and searches them by plain text.
"use strict";

(() => {
  const log = document.getElementById("log");
  if (!log) return;
  const MOST = 10000; // lines in memory
  const MOST_CHARACTERS = 8e6;
  const DRAWN = 400; // lines in the page
  const STEP = 200;
  const byId = (id) => document.getElementById(id);
  const newer = byId("log-newer"),
    state = byId("log-state"),
    none = byId("log-none"),
    form = byId("log-search"),
    wrong = byId("log-wrong");
  const container = log.dataset.follow;
  const isLocal = document.body.dataset.times === "local";

  let lines = []; // all in memory: { at, text, tone }
  let fit = []; // those that the search finds
  let from = 0; // the part of them in the page
  let to = 0;
  let characters = 0;
  let last = "";
  let unseen = 0;
  let isReading = false;
  let gap = false;
  let search = { words: null, without: null, level: "" };

  const say = (text) => {
    if (state.textContent !== text) state.textContent = text;
  };
  const atEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  const toEnd = () => {
    log.scrollTop = log.scrollHeight;
  };

  // Levels: what a line's structure names, else what its words say (dashboard/log_lines.py does the same) ----------

  const ERROR = /^(error|err|fatal|critical|crit|panic|severe|alert|emerg|emergency)$/;
  const WARN = /^(warn|warning)$/;
  const NAMES =
    "emergency|information|critical|warning|verbose|notice|severe|emerg|error|fatal|panic|alert|debug|trace|crit" +
    "|warn|info|err|log";
  const LOGFMT = /(?:^|\s)(?:level|lvl|severity)="?(\w+)/i;
  const MARKED = new RegExp(`[[<|]\\s*(${NAMES})\\s*[\\]>|]|^\\s*(${NAMES})\\s*[:!\\]]`, "i");
  const CAPITALS = new RegExp(`\\b(${NAMES.toUpperCase()})\\b`);
  const KLOG = /^([IWEF])\d{4} \d\d:\d\d/;
  const KLOG_LEVELS = { E: "error", F: "fatal", W: "warn" };
  const RAISED = /Traceback \(most|\b[A-Z]\w*(?:Error|Exception)\b/;
  const SAYS_ERROR =
    /\b(?:fatal|panic|unhandled|uncaught|segmentation fault)\b|(?<!no )(?<!0 )\berror\b/i;
  const SAYS_WARN = /\bwarn(?:ing)?\b/i;
  const FIELDS = ["level", "severity", "lvl", "levelname", "loglevel", "log.level"];

  function documentOf(text) {
    if (text[0] !== "{" || text.length > 65536) return null;
    try {
      const found = JSON.parse(text);
      return found && typeof found === "object" && !Array.isArray(found) ? found : null;
    } catch {
      return null;
    }
  }

  function levelOf(found) {
    const name = FIELDS.find((one) => found[one] !== undefined && found[one] !== null);
    const value = name === undefined ? "" : found[name];
    if (typeof value === "number") return value >= 50 ? "error" : value >= 40 ? "warn" : "info";
    return String(value).slice(0, 20).toLowerCase();
  }

  const toneOfLevel = (level) => (ERROR.test(level) ? "error" : WARN.test(level) ? "warn" : "");

  function toneOf(text) {
    const found = documentOf(text);
    const named = found && levelOf(found);
    if (named) return toneOfLevel(named);
    const head = text.slice(0, 120);
    const klog = KLOG.exec(head);
    if (klog) return toneOfLevel(KLOG_LEVELS[klog[1]] || "");
    for (const pattern of [LOGFMT, MARKED, CAPITALS]) {
      const match = pattern.exec(head);
      const level = match && (match[1] || match[2] || "").toLowerCase();
      if (level && new RegExp(`^(${NAMES})$`).test(level)) return toneOfLevel(level);
    }
    const more = text.slice(0, 400);
    if (RAISED.test(more) || SAYS_ERROR.test(more)) return "error";
    return SAYS_WARN.test(more) ? "warn" : "";
  }

  // What a line looks like ---------------------------------------------------------------------------------------

  const two = (number, digits = 2) => String(number).padStart(digits, "0");

  function clock(at) {
    if (!isLocal) return at.slice(11, 23);
    const time = new Date(at);
    if (Number.isNaN(time.getTime())) return at.slice(11, 23);
    const clockTime = [time.getHours(), time.getMinutes(), time.getSeconds()].map((part) => two(part)).join(":");
    return `${clockTime}.${two(time.getMilliseconds(), 3)}`;
  }

  function marked(code, text) {
    if (!search.words) {
      code.textContent = text;
      return;
    }
    let end = 0;
    let count = 0;
    for (const match of text.slice(0, 20000).matchAll(search.words)) {
      if (!match[0] || count > 20) break;
      code.append(text.slice(end, match.index));
      const mark = document.createElement("mark");
      mark.textContent = match[0];
      code.append(mark);
      end = match.index + match[0].length;
      count += 1;
    }
    code.append(text.slice(end));
  }

  function columns(p, code, found) {
    const name = ["message", "msg", "event", "text"].find((one) => typeof found[one] === "string");
    if (!name) return false;
    const level = document.createElement("span");
    level.textContent = levelOf(found);
    const more = document.createElement("button");
    more.type = "button";
    more.className = "more";
    const rest = Object.keys(found).filter((one) => one !== name && !FIELDS.includes(one)).length;
    more.textContent = `+${rest}`;
    more.setAttribute("aria-expanded", "false");
    more.setAttribute("aria-label", `${rest} more fields`);
    marked(code, found[name]);
    p.classList.add("doc");
    p.append(level, code, more);
    return true;
  }

  function row(line) {
    if (line.gap) {
      const p = document.createElement("p");
      p.className = "gap";
      p.textContent = line.gap;
      return p;
    }
    const p = document.createElement("p");
    if (line.tone) p.classList.add(`t-${line.tone}`);
    if (line.at === log.dataset.line) p.classList.add("picked");
    p.dataset.at = line.at;
    const link = document.createElement("a");
    link.href = `?line=${encodeURIComponent(line.at)}#logs`;
    link.title = line.at;
    link.textContent = clock(line.at);
    p.append(link);
    const code = document.createElement("code");
    const found = documentOf(line.text);
    if (!found || !columns(p, code, found)) {
      marked(code, line.text);
      p.append(code);
    }
    return p;
  }

  log.addEventListener("click", (event) => {
    const more = event.target.closest(".more");
    if (!more) return;
    const p = more.closest("p");
    const isOpen = more.getAttribute("aria-expanded") === "true";
    more.setAttribute("aria-expanded", String(!isOpen));
    if (isOpen) {
      p.querySelector(".rest").remove();
      return;
    }
    const rest = document.createElement("span");
    rest.className = "rest";
    const line = lines.find((one) => one.at === p.dataset.at);
    rest.textContent = JSON.stringify(documentOf(line.text), null, 2);
    p.append(rest);
  });

  // Which lines are in the page ----------------------------------------------------------------------------------

  const fits = (line) => {
    if (line.gap) return !search.words && !search.level;
    if (search.level && line.tone !== "error" && (search.level === "error" || line.tone !== "warn")) return false;
    const text = line.text.slice(0, 20000);
    if (search.words && text.search(search.words) < 0) return false;
    return !search.without || text.search(search.without) < 0;
  };

  function draw(first) {
    from = Math.max(0, Math.min(first, fit.length - DRAWN));
    to = Math.min(fit.length, from + DRAWN);
    log.replaceChildren(...fit.slice(from, to).map(row));
    tellWhatIsMissing();
  }

  function tellWhatIsMissing() {
    none.hidden = fit.length > 0;
    if (fit.length || !lines.length) return;
    none.querySelector("b").textContent = "No lines match";
    none.querySelector("span").textContent = `None of ${lines.length} lines fits. New lines are searched too.`;
  }

  function refit() {
    fit = lines.filter(fits);
    draw(fit.length);
    isReading = false;
    unseen = 0;
    newer.hidden = true;
    toEnd();
  }

  function shift(by) {
    const height = log.scrollHeight;
    if (by < 0) {
      const first = Math.max(0, from + by);
      log.prepend(...fit.slice(first, from).map(row));
      from = first;
      log.scrollTop += log.scrollHeight - height;
      while (to - from > DRAWN) {
        log.lastElementChild.remove();
        to -= 1;
      }
      return;
    }
    const end = Math.min(fit.length, to + by);
    log.append(...fit.slice(to, end).map(row));
    to = end;
    dropAbove(to - from - DRAWN);
  }

  function dropAbove(count) {
    if (count <= 0) return;
    const before = log.scrollHeight;
    for (let number = 0; number < count; number += 1) log.firstElementChild.remove();
    from += count;
    if (isReading) log.scrollTop -= before - log.scrollHeight;
  }

  function trim() {
    if (lines.length <= MOST && characters <= MOST_CHARACTERS) return;
    let count = Math.max(0, lines.length - MOST);
    for (let number = 0; number < count; number += 1) characters -= (lines[number].text || "").length;
    while (characters > MOST_CHARACTERS && count < lines.length - 1) {
      characters -= (lines[count].text || "").length;
      count += 1;
    }
    const gone = new Set(lines.splice(0, count));
    let lost = 0;
    while (lost < fit.length && gone.has(fit[lost])) lost += 1;
    fit.splice(0, lost);
    dropAbove(Math.min(lost - from, to - from));
    from = Math.max(0, from - lost);
    to = Math.max(from, to - lost);
  }

  function take(text) {
    const fresh = [];
    for (const words of text) {
      const space = words.indexOf(" ");
      const at = words.slice(0, space);
      if (space < 20 || at <= last) continue; // read again after a reconnect
      last = at;
      const line = words.slice(space + 1);
      fresh.push({ at, text: line, tone: toneOf(line) });
      characters += line.length;
    }
    if (!fresh.length) return;
    if (gap) fresh.unshift({ gap: "Reconnected", at: fresh[0].at });
    gap = false;
    lines.push(...fresh);
    const matching = fresh.filter(fits);
    fit.push(...matching);
    trim();
    if (isReading) {
      unseen += matching.filter((line) => !line.gap).length;
      newer.textContent = `Paused while you read; ${unseen} new line${unseen === 1 ? "" : "s"} below`;
      newer.hidden = !unseen;
    } else if (matching.length >= DRAWN) draw(fit.length);
    else shift(matching.length);
    tellWhatIsMissing();
    if (!isReading) toEnd();
  }

  log.addEventListener("scroll", () => {
    isReading = !atEnd() || to < fit.length;
    if (log.scrollTop < 40 && from > 0) shift(-STEP);
    else if (atEnd() && to < fit.length) shift(STEP);
    if (isReading) {
      if (state.textContent === "Following") say("Paused while you read");
      return;
    }
    unseen = 0;
    newer.hidden = true;
    if (state.textContent === "Paused while you read") say("Following");
  });
  newer.addEventListener("click", () => {
    draw(fit.length);
    toEnd();
    log.focus();
  });

  // Search -------------------------------------------------------------------------------------------------------

  const plain = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

  function read() {
    const given = new FormData(form);
    const isRegular = given.get("re") === "1";
    const pattern = (name) => {
      const text = String(given.get(name) || "");
      return text ? new RegExp(isRegular ? text : plain(text), "gi") : null;
    };
    wrong.textContent = "";
    try {
      search = { words: pattern("q"), without: pattern("without"), level: String(given.get("level") || "") };
    } catch (error) {
      wrong.textContent = error.message.replace(/^Invalid regular expression: /, "");
      return;
    }
    const url = new URL(location.href);
    for (const name of ["q", "without", "level", "re"]) {
      const value = String(given.get(name) || "");
      if (value) url.searchParams.set(name, value);
      else url.searchParams.delete(name);
    }
    history.replaceState(history.state, "", url);
    const wanted = new URL(log.dataset.file, location.href);
    if (!isRegular) wanted.search = new URLSearchParams([...given].filter(([name, value]) => name && value));
    byId("log-file").href = wanted;
    refit();
  }

  let soon = null;
  form.addEventListener("input", () => {
    clearTimeout(soon);
    soon = setTimeout(read, 150);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    event.stopPropagation();
    clearTimeout(soon);
    read();
  });

  // Lines before those that came with the page; a search and a link to a line mean them too.
  async function loadEarlier() {
    const answer = await fetch(log.dataset.file, { headers: { Accept: "text/plain" } });
    if (!answer.ok || answer.redirected) return;
    const earlier = [];
    for (const words of (await answer.text()).split("\n")) {
      const space = words.indexOf(" ");
      if (space < 20) continue;
      const text = words.slice(space + 1);
      earlier.push({ at: words.slice(0, space), text, tone: toneOf(text) });
    }
    const end = earlier.length ? earlier[earlier.length - 1].at : "";
    lines = [...earlier, ...lines.filter((line) => line.at > end)];
    characters = lines.reduce((sum, line) => sum + (line.text || "").length, 0);
    if (end > last) last = end;
    byId("log-earlier")?.remove();
    const top = fit[from]?.at;
    const wasReading = isReading;
    fit = lines.filter(fits);
    if (!wasReading) {
      refit();
      return;
    }
    const place = Math.max(
      0,
      fit.findIndex((line) => line.at >= (log.dataset.line || top)),
    );
    draw(place - STEP);
    log.querySelectorAll("p")[place - from]?.scrollIntoView({ block: "center" });
  }

  // Following, over the page's connection; only in a tab that is seen -----------------------------------------------

  let failures = 0;
  let isOver = false;
  let rest = "";
  let begun = null;

  function follow() {
    if (!container || document.hidden || isOver) return;
    rest = "";
    window.pageSocket.send({ follow: container, since: last || "1970-01-01T00:00:01Z" });
  }

  function again(words) {
    clearTimeout(begun);
    gap = lines.length > 0;
    say(words);
    failures += 1;
    setTimeout(follow, Math.min(15000, 500 * 2 ** failures));
  }

  document.addEventListener("bh:log", (event) => {
    const { log: text, state: now, detail } = event.detail;
    if (now === "following") {
      begun = setTimeout(() => {
        failures = 0;
        say(isReading ? "Paused while you read" : "Following");
      }, 300);
    } else if (now === "removed") {
      clearTimeout(begun);
      isOver = true;
      say("The container has been removed");
    } else if (now === "ended") again("The log has ended; checking again");
    else if (now) again(detail || "The log cannot be read; trying again");
    if (!text) return;
    const parts = (rest + text).split("\n");
    rest = parts.pop();
    take(parts.map((line) => line.replace(/\r$/, "")));
  });
  document.addEventListener("bh:socket", (event) => {
    if (event.detail) follow();
    else if (container && !isOver && !document.hidden) {
      clearTimeout(begun);
      gap = lines.length > 0;
      say("Disconnected; reconnecting");
    }
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) window.pageSocket.send({ unfollow: true });
    else follow(); // nothing is missed: it begins after the last line
  });

  // The card -----------------------------------------------------------------------------------------------------

  const wrap = byId("log-wrap");
  wrap.hidden = false;
  wrap.addEventListener("click", () => {
    const isOn = wrap.getAttribute("aria-pressed") !== "true";
    wrap.setAttribute("aria-pressed", String(isOn));
    log.classList.toggle("nowrap", !isOn);
  });
  window.fullScreen(byId("log-full"), "logs");
  byId("log-re").hidden = false;
  byId("log-go").hidden = true;
  if (isLocal) byId("log-hint").textContent = "Times are local. Select a time to link to its line";

  const asked = new URLSearchParams(location.search);
  const regular = form.querySelector("[name=re]");
  regular.defaultChecked = asked.get("re") === "1";
  regular.checked = regular.defaultChecked;
  for (const p of log.querySelectorAll("p[data-at]")) {
    const text = p.querySelector("code").textContent;
    lines.push({ at: p.dataset.at, text, tone: toneOf(text) });
    characters += text.length;
    if (p.dataset.at > last) last = p.dataset.at;
  }
  const earlier = document.createElement("button");
  Object.assign(earlier, { type: "button", id: "log-earlier", className: "newer", textContent: "Load earlier lines" });
  earlier.hidden = lines.length < 500;
  earlier.addEventListener("click", () => {
    isReading = true;
    loadEarlier();
  });
  log.before(earlier);
  read();
  if (log.dataset.line) {
    isReading = true;
    const place = fit.findIndex((line) => line.at >= log.dataset.line);
    draw(place - STEP);
    log.querySelectorAll("p")[place - from]?.scrollIntoView({ block: "center" });
    log.closest(".card").scrollIntoView();
  }
  if (["q", "without", "level", "line"].some((name) => asked.get(name))) loadEarlier();
  follow();
})();
