/** How many people are here: asked for now and then, while somebody may see it. No server tells it by itself. */

import { load } from "./history.js";
import { counted, texts } from "./page.js";

const EVERY_MS = 10_000;

/** @param {{room?: string}} topic an inbox has nobody to count */
export function showPresence({ room }) {
  if (room === undefined) return;
  const here = document.getElementById("here");
  const show = async () => {
    if (document.visibilityState !== "visible") return;
    try {
      const { rooms } = await load("/api/presence", { room });
      const count = rooms.find((one) => one.room === room)?.here ?? 0;
      here.textContent = counted(texts.here_one, texts.here_other, count);
      here.hidden = count === 0;
    } catch {
      // A number that may be old is worse than none.
      here.hidden = true;
    }
  };
  setInterval(show, EVERY_MS);
  document.addEventListener("visibilitychange", show);
  // The page's own connection should be counted already.
  setTimeout(show, 1_000);
}
