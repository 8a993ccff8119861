// A log as it grows: followed, unless somebody reads further up; never more lines than a page can hold.
"use strict";

(() => {
  const log = document.getElementById("log");
  if (!log) return;
  const MOST = 5000;
  const newer = document.getElementById("log-newer");
  const state = document.getElementById("log-state");
  const address = log.dataset.follow;
  let last = "",
    unseen = 0,
    isReading = false,
    stopped = false,
    failures = 0,
    gap = false;

  const lines = () => log.querySelectorAll("p[data-at]");
  const say = (text) => {
    if (state.textContent !== text) state.textContent = text;
  };
  const atEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  const toEnd = () => {
    log.scrollTop = log.scrollHeight;
  };

  function row(at, text) {
    const p = document.createElement("p");
    const tone = /error|fatal|critical|traceback|panic/i.test(text.slice(0, 200))
      ? "error"
      : /warn/i.test(text.slice(0, 200))
        ? "warn"
        : "";
    if (tone) p.className = `t-${tone}`;
    p.dataset.at = at;
    const link = document.createElement("a");
    link.href = `?lines=5000&line=${encodeURIComponent(at)}`;
    link.title = at;
    link.textContent = at.slice(11, 23);
    const code = document.createElement("code");
    code.textContent = text;
    p.append(link, code);
    return p;
  }

  function note(text) {
    const p = document.createElement("p");
    p.className = "gap";
    p.textContent = text;
    log.append(p);
  }

  function take(text) {
    const found = document.createDocumentFragment();
    let count = 0;
    for (const line of text) {
      const space = line.indexOf(" ");
      const at = line.slice(0, space);
      if (space < 20 || at <= last) continue; // read again after a reconnect
      last = at;
      found.append(row(at, line.slice(space + 1)));
      count += 1;
    }
    if (!count) return;
    document.getElementById("log-empty")?.remove();
    if (gap) {
      note("Reconnected");
      gap = false;
    }
    const follow = !isReading;
    log.append(found);
    while (log.childElementCount > MOST) log.firstElementChild.remove();
    if (follow) toEnd();
    else {
      unseen += count;
      newer.textContent = `Paused while you read; ${unseen} new line${unseen === 1 ? "" : "s"} below`;
      newer.hidden = false;
    }
  }

  // Only a tab that is seen follows: a browser opens six connections to a server, for all of its tabs.
  let following = null;
  const seen = () =>
    new Promise((resolve) => {
      if (!document.hidden) resolve();
      else document.addEventListener("visibilitychange", resolve, { once: true });
    });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) following?.abort();
  });

  async function follow() {
    while (!stopped) {
      await seen();
      following = new AbortController();
      try {
        const answer = await fetch(`${address}?since=${encodeURIComponent(last)}`, {
          headers: { Accept: "text/plain" },
          signal: following.signal,
        });
        if (answer.status === 404) {
          say("The container has been removed");
          return;
        }
        if (!answer.ok || !answer.body || answer.redirected) throw new Error(String(answer.status));
        say(isReading ? "Paused while you read" : "Following");
        failures = 0;
        const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        let rest = "";
        for (;;) {
          const { value, done } = await reader.read();
          if (done) break;
          const parts = (rest + value).split("\n");
          rest = parts.pop();
          take(parts.map((line) => line.replace(/\r$/, "")));
        }
        gap = true;
        say("The log has ended; checking again");
        failures += 1;
      } catch {
        if (document.hidden) continue; // nothing is missed: the next request begins after the last line
        failures += 1;
        gap = true;
        say("Disconnected; reconnecting");
      }
      await new Promise((done) => setTimeout(done, Math.min(15000, 500 * 2 ** failures)));
    }
  }

  log.addEventListener("scroll", () => {
    isReading = !atEnd();
    if (isReading) {
      if (state.textContent === "Following") say("Paused while you read");
      return;
    }
    unseen = 0;
    newer.hidden = true;
    if (state.textContent === "Paused while you read") say("Following");
  });
  newer.addEventListener("click", () => {
    toEnd();
    log.focus();
  });
  const wrap = document.getElementById("log-wrap");
  if (wrap)
    wrap.addEventListener("click", () => {
      const isOn = wrap.getAttribute("aria-pressed") !== "true";
      wrap.setAttribute("aria-pressed", String(isOn));
      log.classList.toggle("nowrap", !isOn);
    });
  addEventListener("pagehide", () => {
    stopped = true;
  });

  for (const p of lines()) if (p.dataset.at > last) last = p.dataset.at;
  const picked = log.dataset.line && [...lines()].find((p) => p.dataset.at === log.dataset.line);
  if (picked) {
    picked.classList.add("picked");
    isReading = true;
    picked.scrollIntoView({ block: "center" });
    log.closest(".card").scrollIntoView();
  } else toEnd();
  if (address) {
    if (!last) last = "0";
    follow();
  }
})();
