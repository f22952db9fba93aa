/**
 * The search beside the chat. The server finds, and renders what it found as a page of its own; here the list of that
 * page is shown without leaving the chat, its draft and its connection.
 */

import { addressOf, texts } from "./page.js";
import { Row } from "./row.js";

const element = (id) => document.getElementById(id);

/** @param {(id: string) => boolean} show brings a message of this page into sight, if it is there */
export function offerSearch(show) {
  const [link, finder, results] = [element("search-link"), element("finder"), element("finder-results")];
  const form = finder.querySelector("form");
  let asked = 0;

  const open = (isOpen) => {
    finder.hidden = !isOpen;
    link.setAttribute("aria-expanded", isOpen);
    if (isOpen) form.elements.q.select();
    else link.focus();
  };

  /** Shows what the page at `path` found, in place of `old`. */
  const find = async (path, old) => {
    const turn = (asked += 1);
    results.setAttribute("aria-busy", "true");
    if (old === null) results.replaceChildren(paragraph(texts.searching));
    try {
      const response = await fetch(addressOf(path), { headers: { accept: "text/html" } });
      if (!response.ok && response.status !== 422) throw new Error(`The server answered ${response.status}.`);
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      // An answer that came late is that of another question.
      if (turn !== asked) return;
      const found = document.importNode(page.getElementById("found"), true);
      showLocally(found);
      if (old === null) results.replaceChildren(...found.childNodes);
      else old.replaceWith(...found.childNodes);
    } catch (error) {
      console.warn("The search failed:", error);
      if (turn === asked) results.append(paragraph(texts.search_failed));
    } finally {
      if (turn === asked) results.setAttribute("aria-busy", "false");
    }
  };

  link.setAttribute("role", "button");
  link.setAttribute("aria-controls", "finder");
  link.setAttribute("aria-expanded", "false");
  link.addEventListener("click", (event) => {
    event.preventDefault();
    open(finder.hidden);
  });
  element("finder-close").addEventListener("click", () => open(false));
  finder.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.isComposing) return;
    event.preventDefault();
    open(false);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    find(`${form.getAttribute("action")}?${new URLSearchParams(new FormData(form))}`, null);
  });
  results.addEventListener("click", (event) => {
    const next = event.target.closest("[rel=next]");
    const when = event.target.closest("a.when");
    if (next) {
      event.preventDefault();
      find(next.pathname + next.search, next.parentElement);
    } else if (when && show(when.closest("article").dataset.id)) {
      event.preventDefault();
      // On a narrow screen the panel lies over the message.
      if (matchMedia("(max-width: 719px)").matches) open(false);
    }
  });
}

/** Times in the zone of the reader. The ids are those of the rows in the chat, and may stand once only. */
export function showLocally(found) {
  let previous = null;
  for (const li of found.querySelectorAll(".row")) {
    const row = new Row(li);
    row.follow(previous);
    li.classList.add("first");
    row.article.removeAttribute("id");
    previous = row;
  }
}

function paragraph(text) {
  const paragraph = document.createElement("p");
  paragraph.className = "none";
  paragraph.textContent = text;
  return paragraph;
}
