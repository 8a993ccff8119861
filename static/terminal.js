// A shell in a tenant's container: xterm.js over one WebSocket. What was shown stays when it ends.
"use strict";

(() => {
  const place = document.getElementById("term");
  if (!place) return;
  const form = document.getElementById("term-form");
  const state = document.getElementById("term-state");
  const term = new Terminal({
    fontSize: 13,
    scrollback: 5000,
    screenReaderMode: true,
    cursorBlink: true,
    theme: { background: "#121110", foreground: "#eeebe7" },
  });
  const fit = new FitAddon.FitAddon();
  term.loadAddon(fit);
  let socket = null,
    isShown = false,
    reason = "";
  const size = () => ({ columns: term.cols, rows: term.rows });
  const say = (text) => {
    state.textContent = text;
  };
  const tell = (text) => term.write(`\r\n\x1b[1;33m${text}\x1b[0m\r\n`);

  function open() {
    if (!isShown) {
      place.hidden = false;
      document.getElementById("term-help").hidden = false;
      term.open(place);
      isShown = true;
    }
    fit.fit();
    say("Opening");
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    socket = new WebSocket(
      `${scheme}://${location.host}${document.body.dataset.home}ws/terminal/${place.dataset.container}`,
    );
    socket.binaryType = "arraybuffer";
    let ended = "";
    socket.onopen = () => {
      socket.send(JSON.stringify({ reason, ...size() }));
      say("Open");
      term.focus();
    };
    socket.onmessage = (event) => {
      if (typeof event.data !== "string") {
        term.write(new Uint8Array(event.data));
        return;
      }
      ended = JSON.parse(event.data).detail;
    };
    socket.onclose = () => {
      socket = null;
      ended = ended || "The connection was lost.";
      tell(`${ended} Press Enter to open a new shell.`);
      say(`Ended: ${ended}`);
    };
  }

  term.onData((text) => {
    if (socket && socket.readyState === 1) socket.send(new TextEncoder().encode(text));
    else if (!socket && text === "\r") open();
  });
  term.onResize(() => {
    if (socket && socket.readyState === 1) socket.send(JSON.stringify(size()));
  });
  term.attachCustomKeyEventHandler((event) => {
    if (event.type !== "keydown" || !event.ctrlKey || !event.shiftKey) return true;
    if (event.key === "C") {
      navigator.clipboard?.writeText(term.getSelection());
      event.preventDefault();
      return false;
    }
    if (event.key === "V") {
      navigator.clipboard?.readText().then((text) => term.paste(text));
      event.preventDefault();
      return false;
    }
    if (event.key === "Escape") {
      document.getElementById("main").focus();
      return false;
    }
    return true;
  });
  addEventListener("resize", () => {
    if (isShown) fit.fit();
  });
  window.fullScreen(document.getElementById("term-full"), "shell");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    event.stopPropagation();
    reason = document.getElementById("reason").value;
    form.hidden = true;
    open();
  });
  window.terminalText = () => {
    // what is on the screen, for tests and for who reads it otherwise
    const lines = [];
    for (let row = 0; row < term.buffer.active.length; row += 1)
      lines.push(term.buffer.active.getLine(row).translateToString(true));
    return lines.join("\n");
  };
})();
