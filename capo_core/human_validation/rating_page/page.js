"use strict";
(() => {
  const content = JSON.parse(document.getElementById("content").textContent);
  const SAVE_EVERY_MS = 10000;
  const find = (id) => document.getElementById(id);

  let rater = null;
  let order = []; // tasks in this rater's order
  let place = 0; // index into order; order.length is the finish
  let started = false; // whether the instructions are behind
  let ratings = new Map(); // task id -> { signature, answer, comment, seconds }; answer null: none yet, "": cannot say
  let shownSince = null; // when the task on screen last came into view, null while none is
  let downloaded = true; // whether a file holds everything that was entered
  let useKeys = true;

  // Saving: everything of one rater under one key of this browser's storage.

  const keyOf = (...parts) => JSON.stringify(["rating page", content.set, ...parts]);
  let storage = openStorage();

  /** Return the storage of this browser, or null where it keeps nothing. */
  function openStorage() {
    try {
      localStorage.setItem(keyOf("probe"), "");
      localStorage.removeItem(keyOf("probe"));
      return localStorage;
    } catch {
      return null;
    }
  }

  function warnOfStorage() {
    storage = null;
    const warning = find("storage-warning");
    warning.textContent = "This browser does not keep what you enter (a private window, or no space left). "
      + "Download your ratings before you close or reload this page; you can do so at any time.";
    warning.hidden = false;
  }

  /** Read what is kept under a key, null where there is nothing or nothing readable. */
  function recall(key) {
    try {
      return JSON.parse(storage.getItem(key));
    } catch {
      return null;
    }
  }

  function keep(key, value) {
    if (!storage) return;
    try {
      storage.setItem(key, JSON.stringify(value));
    } catch {
      warnOfStorage();
    }
  }

  function save() {
    settleClock();
    if (rater !== null) keep(keyOf("rater", rater), { started, place, ratings: Object.fromEntries(ratings) });
  }

  /** Return whether what was kept is a rating of this very task: same content, an answer it allows. */
  function isRatingOf(task, rating) {
    const answers = [null, "", ...task.people.map(({ letter }) => letter)];
    return rating instanceof Object && rating.signature === task.signature && answers.includes(rating.answer)
      && typeof rating.comment === "string" && Number.isFinite(rating.seconds);
  }

  /** Take up what is kept of the rater: ratings of tasks that are still the same, and whether and where he was. */
  function takeUp() {
    const saved = recall(keyOf("rater", rater));
    const kept = saved instanceof Object && saved.ratings instanceof Object ? saved.ratings : {};
    ratings = new Map(content.tasks.filter((task) => Object.hasOwn(kept, task.id) && isRatingOf(task, kept[task.id]))
      .map((task) => [task.id, kept[task.id]]));
    started = saved instanceof Object && saved.started === true;
    return Number.isInteger(saved?.place) ? saved.place : 0;
  }

  /** Return the first task without an answer; nobody stands further on. */
  function findFurthest() {
    const open = order.findIndex((task) => !isAnswered(task));
    return open < 0 ? order.length : open;
  }

  const isAnswered = (task) => ratings.has(task.id) && ratings.get(task.id).answer !== null;
  const countAnswered = () => order.filter(isAnswered).length;

  /** Return the rating of the task on screen, begun if need be. */
  function currentRating() {
    const task = order[place];
    if (!ratings.has(task.id)) ratings.set(task.id, { signature: task.signature, answer: null, comment: "", seconds: 0 });
    return ratings.get(task.id);
  }

  // Time: only while a task is in view, neither behind another tab nor behind a dialog.

  function settleClock() {
    const now = performance.now();
    // The clock is settled at every save; a longer gap means that the machine slept.
    if (shownSince !== null) currentRating().seconds += Math.min(now - shownSince, 2 * SAVE_EVERY_MS) / 1000;
    const inView = document.visibilityState === "visible" && !find("task").hidden && !document.querySelector("dialog[open]");
    shownSince = inView ? now : null;
  }

  // Screens

  function show(name) {
    for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== name;
    find("bar").hidden = name !== "task" && name !== "finish";
    find("open-keys").hidden = name !== "task";
    find("download-part").hidden = name !== "task";
    settleClock();
    window.scrollTo(0, 0);
    find(`${name}-title`).focus({ preventScroll: true });
  }

  function say(text, warning = false) {
    const status = document.querySelector("main > section:not([hidden]) .status");
    status.textContent = text;
    status.classList.toggle("warning", warning);
  }

  function showProgress() {
    find("progress-text").textContent = `${countAnswered()} of ${order.length} rated`;
    find("progress").max = order.length;
    find("progress").value = countAnswered();
  }

  /** Begin anew: with consent. */
  function leave() {
    save();
    rater = null;
    order = [];
    ratings = new Map();
    shownSince = null;
    downloaded = true;
    storage?.removeItem(keyOf("current"));
    find("agree").checked = false;
    find("rater").value = "";
    show("consent");
  }

  /** Go on as the rater of that name, or begin with the instructions. */
  function enter(name) {
    rater = name;
    order = shuffleFor(content.tasks, content.set, name);
    place = Math.max(0, Math.min(takeUp(), findFurthest()));
    keep(keyOf("current"), name);
    save();
    showProgress();
    if (started) showPlace();
    else show("instructions");
  }

  function showTask() {
    const task = order[place];
    const n = task.explanations.length;
    find("task-title").textContent = `Task ${place + 1} of ${order.length}`;
    find("lead").textContent = n > 1 ? `One author wrote these ${n} explanations. Who?` : "Who wrote this explanation?";
    find("choices-title").textContent = n > 1 ? "Who wrote them?" : "Who wrote it?";
    find("items").replaceChildren(...makeItems(content.names, task));
    find("people").replaceChildren(...task.people.map(makePerson));
    find("options").replaceChildren(
      ...task.people.map(({ letter }) => makeOption(letter, letter, `Person ${letter}`, choose)),
      makeOption("", "Cannot say", "Cannot say", choose),
    );
    find("back").disabled = place === 0;
    showRating();
    show("task");
    say("");
  }

  /** Show what is kept of the task on screen. */
  function showRating() {
    const { answer, comment } = currentRating();
    find("comment").value = comment;
    for (const radio of document.getElementsByName("answer")) radio.checked = radio.value === answer;
    for (const person of find("people").children) person.classList.toggle("chosen", person.dataset.letter === answer);
    showProgress();
  }

  function showFinish() {
    const answers = order.map((task) => ratings.get(task.id));
    const tally = [
      ["tasks rated", answers.length],
      ["attributed to a person", answers.filter(({ answer }) => answer !== "").length],
      ["cannot say", answers.filter(({ answer }) => answer === "").length],
      ["comments", answers.filter(({ comment }) => comment.trim() !== "").length],
    ];
    find("tally").replaceChildren(...tally.map(([term, count]) => {
      const tile = make("div", "tile");
      tile.append(make("dt", "", term), make("dd", "", String(count)));
      return tile;
    }));
    showProgress();
    show("finish");
    say("");
  }

  function showPlace() {
    if (place < order.length) showTask();
    else showFinish();
  }

  // What a rater does

  function choose(value) {
    currentRating().answer = value;
    downloaded = false;
    showRating();
    save();
    say(`${value ? `Person ${value}` : "Cannot say"} chosen${storage ? ", saved" : ""}.`);
  }

  /** Choose and have the focus follow, so that Enter then is the next task and not the button pressed before. */
  function chooseByKey(value) {
    choose(value);
    find(`answer-${value || "none"}`).focus({ preventScroll: true });
  }

  function goNext() {
    if (!isAnswered(order[place])) {
      say("Choose a person, or “Cannot say”, to go on.", true);
      document.getElementsByName("answer")[0].focus();
      return;
    }
    goTo(place + 1);
  }

  function goTo(there) {
    if (there < 0) return;
    settleClock(); // the time up to here is that of the task left behind
    shownSince = null;
    place = there;
    showPlace();
    save();
  }

  // Files

  /** Return the rated tasks in the order they were presented, one object of COLUMNS each. */
  function listRows() {
    save();
    return order.map((task, i) => [task, i + 1]).filter(([task]) => isAnswered(task)).map(([task, presented]) => {
      const { signature, answer, comment, seconds } = ratings.get(task.id);
      const values = [task.id, signature, rater, answer, comment.trim(), Math.round(seconds * 10) / 10, presented];
      return Object.fromEntries(COLUMNS.map((column, i) => [column, values[i]]));
    });
  }

  function download(format, ending, type) {
    const rows = listRows();
    if (!rows.length) {
      say("Nothing is rated yet, so there is nothing to download.", true);
      return;
    }
    const link = make("a");
    link.download = nameFile(rater, rows.length, order.length, ending);
    link.href = URL.createObjectURL(new Blob([format(rows)], { type }));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    downloaded = true;
    say(`${link.download} is in your downloads.`);
  }

  const downloadLines = () => download(formatLines, "jsonl", "application/x-ndjson");
  const downloadCells = () => download(formatCells, "csv", "text/csv");

  // Dialogs

  function openDialog(name) {
    find(name).showModal();
    save();
  }

  // Keys

  /** Return what a key does on the task screen, null where it keeps the browser's meaning. */
  function actionOf(event) {
    const letter = /^[a-z]$/i.test(event.key) ? event.key : event.code.replace(/^Key/, ""); // other scripts by place
    if (order[place].people.some((person) => person.letter === letter.toUpperCase())) return () => chooseByKey(letter.toUpperCase());
    if (event.key === "0") return () => chooseByKey("");
    if (event.key === "?") return () => openDialog("keys-dialog");
    if (event.key === "ArrowLeft") return () => goTo(place - 1);
    if (event.key === "ArrowRight") return goNext;
    if (event.key === "Enter" && !event.target.closest("button, a, summary")) return goNext;
    return null;
  }

  function obeyKey(event) {
    if (find("task").hidden || document.querySelector("dialog[open]")) return;
    if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing || event.defaultPrevented) return;
    if (event.target === find("comment")) {
      if (event.key === "Escape") find("task-title").focus();
      return;
    }
    const action = useKeys ? actionOf(event) : null;
    if (!action) return;
    event.preventDefault();
    if (!event.repeat) action(); // a key held down must not run through the tasks
  }

  function listen() {
    const on = (id, type, action) => find(id).addEventListener(type, action);
    on("consent-form", "submit", (event) => { event.preventDefault(); show("name"); find("rater").focus(); });
    on("name-form", "submit", (event) => { event.preventDefault(); submitName(); });
    on("start", "click", () => { started = true; showPlace(); save(); });
    on("next", "click", goNext);
    on("back", "click", () => goTo(place - 1));
    on("comment", "input", () => { currentRating().comment = mendText(find("comment").value); downloaded = false; save(); });
    on("download-part", "click", downloadLines);
    on("download-lines", "click", downloadLines);
    on("download-cells", "click", downloadCells);
    on("review", "click", () => goTo(order.length - 1));
    on("restart", "click", () => { if (mayLeave()) leave(); });
    on("erase", "click", erase);
    on("open-instructions", "click", () => openDialog("instructions-dialog"));
    on("open-keys", "click", () => openDialog("keys-dialog"));
    on("use-keys", "change", () => { useKeys = find("use-keys").checked; keep(keyOf("keys"), useKeys); });
    for (const dialog of document.querySelectorAll("dialog")) {
      dialog.addEventListener("close", settleClock);
      dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
    }
    document.addEventListener("keydown", obeyKey);
    document.addEventListener("visibilitychange", save);
    window.addEventListener("pagehide", save);
    window.addEventListener("beforeunload", (event) => { if (!storage && !downloaded) event.preventDefault(); });
    window.addEventListener("storage", followOtherTab);
    setInterval(save, SAVE_EVERY_MS);
  }

  function submitName() {
    const name = find("rater").value.normalize("NFC").replace(/[\p{Cc}\p{Cs}\s]+/gu, " ").trim();
    find("rater-error").hidden = name !== "";
    find("rater").setAttribute("aria-invalid", String(name === ""));
    find("rater").setAttribute("aria-describedby", name ? "rater-hint" : "rater-error rater-hint");
    if (!name) find("rater").focus();
    else enter(name);
  }

  const mayLeave = () => storage || downloaded || window.confirm("Your ratings are not saved anywhere yet. Leave them behind?");

  function erase() {
    if (!window.confirm(`Erase all answers of ${rater} from this browser? Files you downloaded stay.`)) return;
    const own = keyOf("rater", rater);
    leave();
    storage?.removeItem(own);
  }

  /** Take up what the same rater enters in another tab, lest the two overwrite each other. */
  function followOtherTab(event) {
    if (rater === null || event.key !== keyOf("rater", rater)) return;
    shownSince = null;
    takeUp();
    if (!find("task").hidden) showRating();
    settleClock();
  }

  function begin() {
    find("instructions-copy").append(...find("instructions-text").cloneNode(true).childNodes);
    const letters = [...new Set(content.tasks.flatMap((task) => task.people.map(({ letter }) => letter)))].sort();
    find("letter-keys").append(...letters.flatMap((letter) => [make("kbd", "", letter), " "]));
    useKeys = recall(keyOf("keys")) !== false;
    find("use-keys").checked = useKeys;
    if (!storage) warnOfStorage();
    listen();
    const current = recall(keyOf("current"));
    if (typeof current === "string") enter(current);
    else show("consent");
  }

  begin();
})();
