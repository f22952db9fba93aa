/**
 * What stands in a text: web addresses and mentions. `src/pages/text.rs` follows the same rules, so that a message
 * looks the same whether the server or the browser made its row; `templates/pieces.json` tests both.
 */

/** An address begins where no word is under way, and its host begins with a letter or a digit. */
const ADDRESS = /(?<![\p{Alphabetic}\p{N}])https?:\/\/[\p{Alphabetic}\p{N}][^\p{White_Space}<>"]*/giu;
/** `@` and a name without a blank. Inside a word it is a mail address. */
const MENTION = /(?<![\p{Alphabetic}\p{N}])@[\p{Alphabetic}\p{N}_.-]*[\p{Alphabetic}\p{N}_]/gu;

/** A text with its http and https links, and its mentions, as elements. Never as HTML. */
export function nodesOf(content) {
  // The HTML parser turns these so when the server sends the row; a row made here must look the same.
  const text = content.replace(/\r\n?/g, "\n").replaceAll("\0", "");
  const nodes = [];
  let done = 0;
  for (const match of text.matchAll(ADDRESS)) {
    const url = match[0].slice(0, addressLength(match[0]));
    nodes.push(...withMentions(text.slice(done, match.index)), linkTo(url));
    done = match.index + url.length;
  }
  nodes.push(...withMentions(text.slice(done)));
  return nodes.filter((node) => node !== "");
}

/** A text without addresses. */
function withMentions(text) {
  if (!text.includes("@")) return [text];
  const nodes = [];
  let done = 0;
  for (const { 0: name, index } of text.matchAll(MENTION)) {
    nodes.push(text.slice(done, index), mentionOf(name));
    done = index + name.length;
  }
  return [...nodes, text.slice(done)];
}

/** Whether a text calls somebody by name: `@` and the whole name, which may have blanks, whatever its case. */
export function mentions(content, name) {
  const text = content.toLowerCase();
  const called = `@${name.toLowerCase()}`;
  for (let at = text.indexOf(called); at >= 0; at = text.indexOf(called, at + 1)) {
    const isInWord = /[\p{Alphabetic}\p{N}]$/u.test(text.slice(0, at));
    if (!isInWord && !/^[\p{Alphabetic}\p{N}_]/u.test(text.slice(at + called.length))) return true;
  }
  return false;
}

/** A full stop or a closing bracket after an address is the sentence's, unless the address opened the bracket. */
function addressLength(address) {
  const count = (mark) => address.split(mark).length - 1;
  const unopened = { ")": count(")") - count("("), "]": count("]") - count("[") };
  let length = address.length;
  for (;;) {
    const last = address[length - 1];
    if (unopened[last] > 0) unopened[last] -= 1;
    else if (!".,;:!?'…".includes(last)) return length;
    length -= 1;
  }
}

function linkTo(url) {
  const link = document.createElement("a");
  link.href = url;
  link.rel = "noopener noreferrer nofollow ugc";
  link.target = "_blank";
  link.textContent = url;
  return link;
}

function mentionOf(name) {
  const span = document.createElement("span");
  span.className = "mention";
  span.textContent = name;
  return span;
}
