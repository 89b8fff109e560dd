"use strict";
// The rows of a rater as files that come back to be read.

const COLUMNS = ["task_id", "signature", "rater_id", "answer", "comment", "seconds", "presented"];
// As in sheet.py: what a spreadsheet may take for a formula, and the apostrophe that is put in front of it.
const NEUTRALISED = ["'", "=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"];

/** Return a cell of a CSV file that no spreadsheet takes for a formula. */
function formatCell(value) {
  const text = String(value);
  const safe = NEUTRALISED.some((opening) => text.startsWith(opening)) ? `'${text}` : text;
  return /[",;\t\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** Return rows of COLUMNS as JSON Lines. */
function formatLines(rows) {
  return rows.map((row) => `${JSON.stringify(row)}\n`).join("");
}

/** Return rows of COLUMNS as CSV; the byte-order mark makes spreadsheets read it as UTF-8. */
function formatCells(rows) {
  const table = [COLUMNS, ...rows.map((row) => COLUMNS.map((column) => row[column]))];
  return `\ufeff${table.map((cells) => `${cells.map(formatCell).join(",")}\r\n`).join("")}`;
}

/** Return a file name that says whose ratings are in it and how many of how many. */
function nameFile(rater, n, nTasks, ending) {
  const plain = rater.replace(/[^A-Za-z0-9_-]+/g, "_").replace(/^_+|_+$/g, "") || "rater";
  return `ratings_${plain}_${n}_of_${nTasks}.${ending}`;
}

/** Return typed text as it can be written in UTF-8. */
function mendText(text) {
  return text.toWellFormed ? text.toWellFormed() : text;
}
