// Uploads into a tenant's directory: dropped or chosen files go one after another, as bodies that nothing keeps.
"use strict";

(() => {
  const form = document.getElementById("upload-form");
  if (!form) return;
  const list = document.getElementById("uploads");
  const place = document.getElementById("main");
  const token = form.querySelector("[name=csrfmiddlewaretoken]").value;
  const waiting = [];
  let running = null,
    depth = 0;

  form.querySelector("[data-scripted]").hidden = false;
  form.querySelector("[data-plain]").hidden = true;

  const announce = (text) => {
    document.getElementById("announce").textContent = text;
  };

  function address(name, isReplacing) {
    const directory = form.elements.path.value.replace(/\/$/, "");
    const query = new URLSearchParams({
      path: `${directory}/${encodeURIComponent(name)}`,
      generation: form.elements.generation.value,
    });
    if (isReplacing) query.set("replace", "1");
    return `${form.getAttribute("action")}?${query}`;
  }

  // A name is text here, whatever is in it.
  function row(file) {
    const item = document.createElement("li");
    const name = document.createElement("bdi");
    const bar = document.createElement("progress");
    const state = document.createElement("span");
    const act = document.createElement("button");
    name.className = "mono";
    name.textContent = file.name;
    bar.max = 1;
    bar.value = 0;
    bar.setAttribute("aria-label", `Upload of ${file.name}`);
    state.className = "state";
    state.textContent = "Waiting";
    act.type = "button";
    act.className = "btn sm quiet";
    item.append(name, bar, state, act);
    list.hidden = false;
    list.append(item);
    return { file, item, bar, state, act, isReplacing: form.elements.replace.checked };
  }

  function offer(job, words, act) {
    job.act.hidden = !words;
    job.act.textContent = words;
    job.act.onclick = act;
  }

  function end(job, words, tone) {
    job.state.textContent = words;
    job.state.className = `state t-${tone}`;
    job.bar.hidden = true;
    offer(job, "", null);
    running = null;
    announce(`${job.file.name}: ${words}`);
    next();
  }

  function put(job) {
    waiting.push(job);
    job.state.textContent = "Waiting";
    job.state.className = "state";
    job.bar.hidden = false;
    offer(job, "Cancel", () => {
      waiting.splice(waiting.indexOf(job), 1);
      job.item.remove();
    });
    next();
  }

  function next() {
    if (running) return;
    const job = waiting.shift();
    if (!job) {
      if (list.children.length && !list.querySelector(".t-error")) location.reload(); // what failed stays to be read
      return;
    }
    running = job;
    send(job);
  }

  function send(job) {
    const request = new XMLHttpRequest();
    request.open("PUT", address(job.file.name, job.isReplacing));
    request.setRequestHeader("X-CSRFToken", token);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.onprogress = (event) => {
      if (!event.lengthComputable || !event.total) return;
      job.bar.value = event.loaded / event.total;
      job.state.textContent = `${Math.floor((100 * event.loaded) / event.total)} %`;
    };
    request.upload.onload = () => {
      job.state.textContent = "Finishing";
    };
    request.onload = () => answered(job, request);
    // A directory cannot be read, and neither can a file that changes meanwhile.
    request.onerror = () => end(job, "Not uploaded: the file cannot be read, or the connection was lost.", "error");
    request.onabort = () => end(job, "Cancelled. Nothing was written.", "warn");
    offer(job, "Cancel", () => request.abort());
    job.state.textContent = "Uploading";
    request.send(job.file);
  }

  function answered(job, request) {
    if (request.status === 200) {
      end(job, "Uploaded", "ok");
      return;
    }
    let refusal = {};
    try {
      refusal = JSON.parse(request.responseText);
    } catch {
      refusal = { detail: `the server answered ${request.status}.` };
    }
    if (request.status === 412 || refusal.code === "file_exists") {
      end(job, "There is a file of this name already.", "error");
      offer(job, "Replace", () => put(Object.assign(job, { isReplacing: true })));
      return;
    }
    end(job, `Not uploaded: ${refusal.detail}`, "error");
  }

  function take(files) {
    for (const file of files) put(row(file));
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    event.stopImmediatePropagation();
    take(form.elements.file.files);
    form.elements.file.value = "";
  });

  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  place.addEventListener("dragenter", (event) => {
    if (!hasFiles(event)) return;
    depth += 1;
    place.classList.add("drops");
  });
  place.addEventListener("dragleave", (event) => {
    if (!hasFiles(event)) return;
    depth -= 1;
    if (depth <= 0) place.classList.remove("drops");
  });
  place.addEventListener("dragover", (event) => {
    if (hasFiles(event)) event.preventDefault();
  });
  place.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth = 0;
    place.classList.remove("drops");
    take(event.dataTransfer.files);
  });
  addEventListener("beforeunload", (event) => {
    if (running) event.preventDefault();
  });
})();
