/** What the page says to its scripts, and what the browser keeps for it. */

/** The texts of the page's language; see `templates/texts/`. */
export const texts = JSON.parse(document.getElementById("texts").textContent);

/** What stands before every path of this server: nothing, or the path under which it is offered. */
export const base = new URL("..", import.meta.url).pathname.replace(/\/$/, "");

/** The page's language in the flavour that the reader prefers: dates in "es-MX" for a page in "es". */
export const locale = navigator.languages?.find((tag) => tag.split("-")[0] === texts.language) ?? texts.language;

/** Puts values into a text: `fill("to {recipient}", {recipient: "Luis"})`. */
export function fill(text, values) {
  return text.replace(/\{(\w+)\}/g, (place, name) => values[name] ?? place);
}

/** The storage of this browser, or an empty one where it is blocked. Nothing here may fail for want of it. */
export const storage = {
  get(key) {
    try {
      return localStorage.getItem(`corriente.${key}`);
    } catch {
      return null;
    }
  },
  /** `null` or an empty text removes. */
  set(key, value) {
    try {
      if (value) localStorage.setItem(`corriente.${key}`, value);
      else localStorage.removeItem(`corriente.${key}`);
    } catch {
      // Full or blocked: the page goes on without.
    }
  },
  /** The rest of every key that begins with `prefix`. */
  keys(prefix) {
    try {
      const full = `corriente.${prefix}`;
      return Object.keys(localStorage).filter((key) => key.startsWith(full)).map((key) => key.slice(full.length));
    } catch {
      return [];
    }
  },
};

/** The name's normal form, as the server makes it, or `null` if the server would refuse it. */
export function normaliseName(name) {
  const normal = name.normalize("NFC").trim();
  const isForbidden = /[\p{Cc}\u2028\u2029\u202A-\u202E\u2066-\u2069]/u.test(normal);
  return normal && characters(normal) <= 64 && !isForbidden ? normal : null;
}

/** How many characters (code points) a text has: so the server counts. */
export function characters(text) {
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}

/** Keeps the reader's name: for the scripts, and in a cookie for the next page, which then comes with it. */
export function rememberName(name) {
  storage.set("name", name);
  const value = encodeURIComponent(name ?? "");
  document.cookie = `corriente-name=${value}; path=${base || "/"}; max-age=${name ? 365 * 24 * 60 * 60 : 0}; samesite=lax`;
}

/** "1 new message" or "3 new messages": the texts of a language for one and for other numbers. */
const plural = new Intl.PluralRules(locale);
export function counted(one, other, count) {
  return fill(plural.select(count) === "one" ? one : other, { count });
}

/** Whether somebody looks at this page just now. */
export function isAttended() {
  return document.visibilityState === "visible" && document.hasFocus();
}
