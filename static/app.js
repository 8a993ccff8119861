// The connection pill, the tab's title and icon. Everything else on a page is HTML from the server.
const pill = document.getElementById("conn");
const states = {
  live: ["t-ok", "s-ok", "Live"],
  waiting: ["t-warn", "s-busy", "Reconnecting"],
  offline: ["t-error", "s-error", "Offline"],
};
let failures = 0;
let lostAt = null;

function show(state, words) {
  if (!pill) return;
  const [tone, shape, label] = states[state];
  pill.className = `conn ${tone}`;
  pill.querySelector("use").setAttribute("href", `#${shape}`);
  pill.querySelector("span").textContent = words || label;
  pill.title = words || label;
}

document.addEventListener("htmx:wsOpen", () => { failures = 0; lostAt = null; show("live"); });
document.addEventListener("htmx:wsClose", (event) => {
  if (event.detail.event && event.detail.event.code === 4401) { location.reload(); return; }
  failures += 1;
  lostAt = lostAt || new Date();
  if (failures < 2) return;
  const since = lostAt.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
  if (Date.now() - lostAt > 10000) show("offline", `Offline since ${since}`);
  else show("waiting");
});
document.addEventListener("htmx:wsAfterMessage", () => {
  const lede = document.getElementById("lede");
  if (!lede) return;
  const needs = Number(lede.dataset.needs);
  document.title = `${needs ? `(${needs}!) ` : ""}Overview · Boilerhouse`;
  const icon = document.getElementById("favicon");
  const wanted = needs ? icon.dataset.alert : icon.dataset.ok;
  if (icon.getAttribute("href") !== wanted) icon.setAttribute("href", wanted);
});
