/** What the page says to its scripts, and what the browser keeps for it. */

/** The texts of the page's language; see `templates/texts/`. */
export const texts = JSON.parse(document.getElementById("texts").textContent);

/** What stands before every path of this server: nothing, or the path under which it is offered. */
export const base = new URL("..", import.meta.url).pathname.replace(/\/$/, "");

/**
 * Where a path of this server is, for `fetch`: that refuses addresses with a name and a password in them, and a page that was
 * opened by such an address hands them on to paths alone.
 */
export const addressOf = (path) => location.origin + path;

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

/** What is not seen: marks of direction, fillers and the like; and, behind a letter that they do not shape, joiners. */
const HIDDEN =
  /[\u00AD\u034F\u061C\u115F\u1160\u180E\u200B\u200E\u200F\u2060-\u2065\u206A-\u206F\u2800\u3164\uFEFF\uFFA0]|(?<![\u0590-\u{10FFFF}])[\u200C\u200D\uFE00-\uFE0E]/gu;
const NARROW_SPACES = /[\u00A0\u1680\u2000-\u200A\u202F\u205F]/gu;

/**
 * The name's normal form, or `null` if the server would refuse it. It makes the form itself, and has the last word on
 * the rarest of characters.
 */
export function normaliseName(name) {
  const visible = name.normalize("NFC").replace(HIDDEN, "").replace(NARROW_SPACES, " ");
  const normal = visible.normalize("NFC").trim();
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
