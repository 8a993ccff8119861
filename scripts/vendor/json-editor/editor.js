// CodeMirror for the JSON of pages. It lies in a shadow root, so that its styles are sheets, which our policy allows.
import { closeBrackets, closeBracketsKeymap } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap } from "@codemirror/commands";
import { json, jsonParseLinter } from "@codemirror/lang-json";
import { HighlightStyle, bracketMatching, foldGutter, foldKeymap, indentOnInput, syntaxHighlighting, syntaxTree } from "@codemirror/language";
import { lintGutter, lintKeymap, linter } from "@codemirror/lint";
import { highlightSelectionMatches, searchKeymap } from "@codemirror/search";
import { EditorState } from "@codemirror/state";
import { EditorView, drawSelection, highlightActiveLine, highlightActiveLineGutter, highlightSpecialChars, keymap, lineNumbers } from "@codemirror/view";
import { tags } from "@lezer/highlight";

const look = EditorView.theme({
  "&": { font: "var(--fs-xs)/1.6 var(--mono)", color: "var(--ink)", background: "var(--surface)", border: "1px solid var(--control)", borderRadius: "var(--r2)" },
  "&.cm-focused": { outline: "var(--ring) solid var(--focus)", outlineOffset: "1px" },
  ".cm-scroller": { fontFamily: "inherit", lineHeight: "inherit", maxHeight: "40rem" },
  ".cm-content": { caretColor: "var(--ink)", padding: "var(--s2) 0", minHeight: "7rem" },
  ".cm-cursor": { borderLeftColor: "var(--ink)" },
  ".cm-gutters": { background: "var(--sunken)", color: "var(--ink-3)", border: "0", borderRight: "1px solid var(--line)" },
  ".cm-activeLine, .cm-activeLineGutter": { background: "var(--hover)" },
  ".cm-selectionBackground, &.cm-focused .cm-selectionBackground": { background: "var(--busy-bg) !important" },
  ".cm-matchingBracket": { background: "var(--warn-bg)", outline: "1px solid var(--warn-line)" },
  ".cm-tooltip, .cm-panels": { background: "var(--surface)", color: "var(--ink)", borderColor: "var(--line-2)" },
  ".cm-diagnostic-error": { borderLeftColor: "var(--error)" },
});
const colours = HighlightStyle.define([
  { tag: tags.propertyName, color: "var(--busy)" },
  { tag: tags.string, color: "var(--ok)" },
  { tag: [tags.number, tags.bool, tags.null], color: "var(--ember)" },
]);
const VALUES = new Set(["Object", "Array", "String", "Number", "True", "False", "Null"]);

function valuesOf(node) {
  const found = [];
  for (let child = node.firstChild; child; child = child.nextSibling) if (VALUES.has(child.name)) found.push(child);
  return found;
}

/** The place that a JSON pointer names, or the nearest one above it. */
function placeOf(state, pointer) {
  let node = valuesOf(syntaxTree(state).topNode)[0];
  for (const part of pointer.split("/").slice(1)) {
    if (!node) break;
    const name = part.replace(/~1/g, "/").replace(/~0/g, "~");
    let next = null;
    if (node.name === "Array") next = valuesOf(node)[Number(name)];
    if (node.name === "Object") {
      for (const property of node.getChildren("Property")) {
        const key = property.getChild("PropertyName");
        try { if (JSON.parse(state.sliceDoc(key.from, key.to)) === name) next = property.lastChild; } catch { /* half typed */ }
      }
    }
    if (!next) break;
    node = next;
  }
  return node ? { from: node.from, to: Math.min(node.to, state.doc.lineAt(node.from).to) } : { from: 0, to: 0 };
}

function upgrade(area) {
  const label = document.querySelector(`label[for="${area.id}"]`);
  const host = document.createElement("div");
  host.className = "json-editor";
  area.after(host);
  const given = JSON.parse(area.dataset.errors || "[]");
  const asSent = area.value;
  const view = new EditorView({
    root: host.attachShadow({ mode: "open" }),
    parent: host.shadowRoot,
    state: EditorState.create({
      doc: area.value,
      extensions: [
        lineNumbers(), highlightActiveLineGutter(), highlightSpecialChars(), history(), foldGutter(), drawSelection(), indentOnInput(),
        bracketMatching(), closeBrackets(), highlightActiveLine(), highlightSelectionMatches(), lintGutter(), json(), look, syntaxHighlighting(colours),
        linter((editor) => (editor.state.doc.length ? jsonParseLinter()(editor) : [])),
        linter((editor) => (editor.state.doc.toString() === asSent ? given.map(([pointer, detail]) => ({ ...placeOf(editor.state, pointer), severity: "error", message: detail })) : []), { delay: 100 }),
        keymap.of([...closeBracketsKeymap, ...defaultKeymap, ...searchKeymap, ...historyKeymap, ...foldKeymap, ...lintKeymap]),
        EditorView.contentAttributes.of({ "aria-label": area.getAttribute("aria-label") || (label ? label.textContent : "JSON"), "data-for": area.id }),
        EditorView.updateListener.of((update) => { if (update.docChanged) area.value = update.state.doc.toString(); }),
      ],
    }),
  });
  area.hidden = true;
  if (label) label.addEventListener("click", () => view.focus());
}

for (const area of document.querySelectorAll("textarea[data-json]")) upgrade(area);
