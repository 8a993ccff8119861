// Forms: what is typed is not lost by leaving, results and errors are seen, opened sections stay open.
"use strict";

const guarded = document.querySelectorAll("form[data-guard]");
const contents = (form) => new URLSearchParams(new FormData(form)).toString();
const asOpened = new Map([...guarded].map((form) => [form, contents(form)]));
let isSending = false;

const isEdited = (form) =>
  form.isConnected && (form.hasAttribute("data-unsaved") || asOpened.get(form) !== contents(form));

addEventListener("beforeunload", (event) => {
  if (!isSending && [...guarded].some(isEdited)) event.preventDefault();
});
addEventListener("submit", (event) => {
  if (!asOpened.has(event.target)) return;
  isSending = true;
  rememberOpen(event.target);
});
addEventListener("pageshow", () => {
  isSending = false;
});
document.addEventListener(
  "change",
  (event) => {
    // A choice that shows other fields sends its form without a submit event.
    if (!event.target.matches("[data-reload]")) return;
    isSending = true;
    rememberOpen(event.target.form);
  },
  true,
);

function rememberOpen(form) {
  for (const old of form.querySelectorAll("input[name=open]")) old.remove();
  for (const section of form.querySelectorAll("details[data-section][open]")) {
    const input = document.createElement("input");
    Object.assign(input, { type: "hidden", name: "open", value: section.dataset.section });
    form.append(input);
  }
}

function openTarget() {
  const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
  const section = target && target.closest("details[data-section]");
  if (section) section.open = true;
}
addEventListener("hashchange", openTarget);
openTarget();

const wrong = document.querySelector("main [aria-invalid][autofocus]");
const result = document.querySelector("main [data-result]");
if (wrong && wrong.offsetParent) {
  wrong.focus({ preventScroll: true });
  wrong.scrollIntoView({ block: "center" });
} else if (result) {
  result.focus({ preventScroll: true }); // which also reads it out: a region is only read when it changes
  result.scrollIntoView({ block: "center" });
}
