/** Desktop notifications, for those who ask for them: for what is meant for the reader, while nobody looks. */

import { base, fill, isAttended, storage, texts } from "./page.js";

/** Whether this browser can show them. A phone may say yes and then refuse: see `notify`. */
const isPossible = "Notification" in window && window.isSecureContext;
const isOn = () => isPossible && Notification.permission === "granted" && storage.get("notify") === "on";

/** Makes the button that turns them on and off. */
export function offerNotifications() {
  const button = document.getElementById("notify");
  const show = () => {
    const isBlocked = Notification.permission === "denied";
    button.disabled = isBlocked;
    button.setAttribute("aria-pressed", isOn());
    button.textContent = isBlocked ? texts.notify_blocked : isOn() ? texts.notify_on : texts.notify;
  };
  if (!isPossible) return;
  button.hidden = false;
  button.addEventListener("click", async () => {
    const wanted = !isOn();
    if (wanted && Notification.permission !== "granted") await Notification.requestPermission();
    storage.set("notify", wanted ? "on" : null);
    show();
  });
  show();
}

/** Tells of a message that is meant for the reader. However many tabs tell, it is shown once: the tag is its id. */
export function notify({ id, sender, recipient, room, content }, reader) {
  if (!isOn() || isAttended()) return;
  const title = recipient ? fill(texts.direct_from, { sender }) : fill(texts.mention_in, { sender, room });
  const path = `${base}${recipient ? `/inbox/${encodeURIComponent(reader)}` : `/rooms/${encodeURIComponent(room)}`}`;
  try {
    const shown = new Notification(title, { body: content.slice(0, 200), tag: id });
    shown.onclick = () => {
      window.focus();
      if (location.pathname !== path) location.assign(path);
      shown.close();
    };
  } catch {
    // Where only a service worker may show them.
    document.getElementById("notify").hidden = true;
  }
}
