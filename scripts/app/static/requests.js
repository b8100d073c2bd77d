// What is sent to the server and how long it takes, and numbers as people read them.

export const byId = (id) => document.getElementById(id);
export const inSeconds = (time) => `${Math.floor(time / 60)}:${(time % 60).toFixed(1).padStart(4, "0")}`;
/** Which part of a video was found; empty where it is the whole. */
export const partOf = ({ start = null, end = null }) =>
  start === null && end === null ? "" : `${inSeconds(start ?? 0)} to ${end === null ? "the end" : inSeconds(end)}`;
export const inWords = (number) => number.toFixed(2).replace("-", "−");
export const inGroups = (number) => Number(number).toLocaleString("en");

export async function readAnswer(status, text) {
  const answer = text.startsWith("{") ? JSON.parse(text) : { error: text };
  if (status >= 400) throw new Error(answer.error || `the server failed (${status}); its terminal says why`);
  return answer;
}

export async function ask(address, sent) {
  const options = sent && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(sent) };
  const response = await fetch(address, options).catch(() => {
    throw new Error("the server does not answer; is it still running?");
  });
  return readAnswer(response.status, await response.text());
}

/** What the model is doing, in brackets; empty where nobody knows. */
async function doing() {
  const answer = await fetch("/progress").then((response) => response.json()).catch(() => ({}));
  return answer.doing ? ` (${answer.doing})` : "";
}

/** Do something that may take long: `status` says so and for how long, `button` rests meanwhile, errors are shown.
 *  What `work` returns stays in `status`. If a model works (`computes`), `status` says how far it is, too. */
export async function patiently(status, button, words, work, computes = false) {
  const begun = performance.now();
  const clock = document.createElement("span");
  clock.ariaHidden = "true"; // or every second would be read aloud
  status.className = "status working";
  status.replaceChildren(`${words} …`, clock);
  const ticking = setInterval(async () => {
    const seconds = Math.round((performance.now() - begun) / 1000);
    clock.textContent = ` ${seconds} s${computes ? await doing() : ""}`;
  }, 1000);
  if (button) button.disabled = true;
  const say = (kind, text) => {
    if (!status.contains(clock)) return; // something begun later has the word
    status.className = kind;
    status.textContent = text;
  };
  try {
    say("status", (await work()) ?? "");
  } catch (error) {
    say("status wrong", error.message);
  } finally {
    clearInterval(ticking);
    if (button) button.disabled = false;
  }
}

/** A text that people wrote; an error if it has more characters than the server takes. */
export function textOf(id, what) {
  const text = byId(id)?.value.trim() ?? "";
  const most = Number(document.body.dataset.textCharacters);
  if (text.length > most) throw new Error(`the ${what} has ${inGroups(text.length)} characters; shorten it to ${inGroups(most)}`);
  return text;
}

export const asSentence = (notice) => notice && `${notice[0].toUpperCase()}${notice.slice(1)}.`;
