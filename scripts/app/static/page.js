// The page: what is typed goes to the server, what comes back is shown. Text is only ever set as text, never as HTML.

import { ask, asSentence, byId, inGroups, inSeconds, inWords, partOf, patiently, readAnswer, textOf } from "./requests.js";

const { uploadMib, listed, total } = document.body.dataset;
let chosen = null; // the video on the stage: {key, name, is_image, start, end}
let choices = 0; // how often one was chosen, to know an answer that comes too late
let shown = 0; // how many videos of the index are listed before anything is searched

/** Have a form's button do some work instead of leaving the page; the page has only the forms it can serve. */
function onSubmit(id, words, work) {
  const form = byId(id);
  form?.addEventListener("submit", (event) => {
    event.preventDefault();
    patiently(form.querySelector(".status"), form.querySelector("button"), words, work, true);
  });
}

// Videos in the list

const stillOf = (video, time) => `/videos/${video.key}/still?at=${time.toFixed(3)}`;
const bestTime = (video) => video.frames?.[0]?.[0] ?? video.start ?? 0;
const matches = (hit) => hit.probability >= 0.5;

/** How sure a match is, in words that never round to certainty. */
function sureOf(hit) {
  if (hit.probability === undefined) return "";
  if (hit.probability === null) return hit.problem ? "" : "by cosine only";
  const percent = hit.probability < 0.01 ? "below 1 %" : hit.probability > 0.99 ? "above 99 %" : `${Math.round(100 * hit.probability)} %`;
  return matches(hit) ? `${percent} match` : `no match (${percent})`;
}

function showSure(element, hit) {
  element.textContent = sureOf(hit);
  element.classList.toggle("unlikely", !matches(hit));
}

function scoresOf(hit) {
  const cosine = `cosine ${inWords(hit.cosine)}`;
  if (hit.match_logit === null) return cosine;
  return `score ${inWords(hit.score)} = ${cosine} ${hit.match_logit < 0 ? "−" : "+"} match ${inWords(Math.abs(hit.match_logit))}`;
}

function hitElement(video, rank) {
  const item = byId("hit").content.cloneNode(true).firstElementChild;
  const find = (name) => item.querySelector(name);
  const image = find("img");
  image.addEventListener("error", () => {
    image.removeAttribute("src");
    if (find(".problem").hidden) showProblem("cannot be shown; choose it to see why");
  });
  image.src = stillOf(video, bestTime(video));
  find(".name").textContent = find(".name").title = video.name;
  find(".bar").hidden = typeof video.probability !== "number";
  if (rank !== null) {
    find(".rank").textContent = rank;
    showSure(find(".sure"), video);
    find(".bar").classList.toggle("unlikely", !matches(video));
    find(".bar span").style.width = `${100 * (video.probability ?? 0)}%`;
    find(".scores").textContent = scoresOf(video);
    find(".part").textContent = partOf(video);
  }
  const showProblem = (problem) => {
    find(".problem").hidden = false;
    find(".problem").textContent = problem;
  };
  if (video.problem) showProblem(video.problem);
  find("button").addEventListener("click", () => choose(video, find("button"), true));
  return item;
}

async function search() {
  const text = textOf("paragraph", "description");
  const answer = await ask("/search", { text, where: byId("where").value.trim() });
  const { hits, seconds } = answer;
  byId("hits").replaceChildren(...hits.map((hit, place) => hitElement(hit, place + 1)));
  byId("hits").scrollLeft = 0;
  byId("search-notice").hidden = !answer.notice;
  byId("search-notice").textContent = asSentence(answer.notice);
  byId("nothing-matches").hidden = !answer.nothing_matches;
  byId("results-title").textContent = answer.nothing_matches ? "Nothing matches" : "Best first";
  byId("results-facts").textContent = `${hits.length} of ${inGroups(total)} in ${seconds.toFixed(1)} s`;
  byId("more").hidden = true;
  if (hits.length) choose(hits[0], byId("hits").querySelector("button"), false);
}

async function listMore() {
  const { videos } = await ask(`/videos?first=${shown}`);
  byId("hits").append(...videos.map((video) => hitElement(video, null)));
  shown += videos.length;
  byId("more").hidden = shown >= Number(total) || videos.length < Number(listed);
}

// The stage

/** Put a video on the stage, at the frame that matches best. */
async function choose(video, button, playing) {
  const choice = ++choices;
  chosen = video;
  document.querySelector('.hit[aria-current="true"]')?.removeAttribute("aria-current");
  button?.setAttribute("aria-current", "true");
  byId("chosen").hidden = false;
  byId("stage-name").textContent = video.name;
  showSure(byId("sure"), video);
  byId("why").textContent = video.cosine === undefined ? "" : [partOf(video), scoresOf(video)].filter(Boolean).join(" · ");
  for (const id of ["answers", "written", "drawings", "boxes-drawn"]) byId(id)?.replaceChildren();
  if (byId("written")) byId("written").hidden = true;
  for (const status of document.querySelectorAll(".tool .status:not(.working)")) {
    status.className = "status";
    status.textContent = "";
  }
  byId("copy").hidden = true;
  showMoments(video);
  byId("screen").replaceChildren();
  if (playing) byId("screen").scrollIntoView({ block: "nearest" });
  await patiently(byId("screen-status"), null, "Getting the video ready", async () => {
    const prepared = await ask(`/videos/${video.key}/prepare`, {});
    if (choice !== choices) return;
    byId("copy").hidden = !prepared.is_copy;
    showScreen(video, playing);
  });
}

function showScreen(video, playing) {
  const element = document.createElement(video.is_image ? "img" : "video");
  if (video.is_image) {
    element.alt = video.name;
  } else {
    Object.assign(element, { controls: true, preload: "auto", playsInline: true, autoplay: playing });
    element.setAttribute("aria-label", video.name);
    element.addEventListener("loadedmetadata", () => { element.currentTime = bestTime(video); }, { once: true });
    element.addEventListener("timeupdate", () => {
      // The video may go on behind the part that was found: it stops there once.
      if (video.end !== null && video.end !== undefined && element.currentTime >= video.end && !element.dataset.ended) {
        element.dataset.ended = "true";
        element.pause();
      }
    });
    element.addEventListener("error", () => {
      byId("screen-status").className = "status wrong";
      byId("screen-status").textContent = `${video.name}: the browser cannot play it`;
    });
  }
  element.src = `/videos/${video.key}/file`;
  byId("screen").replaceChildren(element);
}

function showMoments(video) {
  const moments = (video.frames ?? []).map(([time, similarity]) => {
    const button = document.createElement("button");
    const image = document.createElement("img");
    button.type = "button";
    button.className = "moment";
    image.alt = "";
    image.src = stillOf(video, time);
    button.append(image, `${inSeconds(time)} · ${inWords(similarity)}`);
    button.title = "Play from here; the number is how similar this frame and the text are";
    button.setAttribute("aria-label", `Play from ${inSeconds(time)}`);
    button.addEventListener("click", () => {
      const player = byId("screen").querySelector("video");
      if (player) Object.assign(player, { currentTime: time }).play();
    });
    return button;
  });
  byId("moments").querySelector(".moments").replaceChildren(...moments);
  byId("moments").hidden = byId("to-moments").hidden = moments.length === 0 || video.is_image;
}

/** Ask something about the video on the stage; what comes after another was chosen is dropped. */
async function askAboutChosen(what, sent, show) {
  const [choice, { key, start = null, end = null }] = [choices, chosen];
  const answer = await ask(`/videos/${key}/${what}`, { ...sent, start, end });
  return choice === choices ? show(answer) : "";
}

function showAnswer(question, { answer, seconds, notice }) {
  const [term, told] = [document.createElement("dt"), document.createElement("dd")];
  term.textContent = question;
  told.textContent = answer;
  told.title = `${seconds.toFixed(1)} s`;
  const pair = document.createElement("div");
  pair.append(term, told);
  byId("answers").prepend(pair);
  byId("question").value = "";
  return asSentence(notice);
}

function showCaption({ caption, seconds }) {
  byId("written").textContent = caption;
  byId("written").title = `${seconds.toFixed(1)} s`;
  byId("written").hidden = false;
}

/** Show pictures in the element `id`, which is in the section `part`. */
function showDrawings(id, part, { drawings, notice }) {
  const figures = drawings.map(({ address, meaning }) => {
    const [figure, link, image, caption] = ["figure", "a", "img", "figcaption"].map((tag) => document.createElement(tag));
    Object.assign(link, { href: address, target: "_blank", rel: "noopener", title: "Open at full size" });
    Object.assign(image, { src: address, alt: meaning });
    caption.textContent = `${meaning}. `;
    const sideways = document.createElement("span");
    sideways.className = "sideways";
    sideways.textContent = "Move it sideways to see the rest. ";
    caption.append(sideways, "Click it to open it at full size.");
    link.append(image);
    figure.append(link, caption);
    return figure;
  });
  byId(id).replaceChildren(...figures);
  byId(part).scrollIntoView({ block: "start" });
  const count = figures.length === 1 ? "The picture is below." : `${figures.length} pictures are below.`;
  return [count, asSentence(notice)].filter(Boolean).join(" ");
}

// Videos of one's own

/** Send a file as it is; its name is only what it is called by. */
function send(file) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not tell how much is sent
    request.open("POST", `/uploads?name=${encodeURIComponent(file.name)}`);
    request.upload.addEventListener("progress", ({ loaded }) => { byId("upload-progress").value = loaded / file.size; });
    request.addEventListener("load", () => readAnswer(request.status, request.responseText).then(resolve, reject));
    request.addEventListener("error", () => reject(new Error(`${file.name}: could not be sent`)));
    request.send(file);
  });
}

async function upload(file) {
  if (file.size > uploadMib * 2 ** 20) {
    throw new Error(`${file.name}: has ${Math.ceil(file.size / 2 ** 20)} MiB, and at most ${uploadMib} are taken; give a shorter one`);
  }
  byId("upload-progress").hidden = false;
  try {
    const video = await send(file);
    const item = hitElement(video, null);
    byId("hits").prepend(item);
    choose(video, item.querySelector("button"), false);
  } finally {
    byId("upload-progress").hidden = true;
    byId("upload-progress").value = 0;
  }
}

function takeFile(file) {
  if (file) patiently(byId("upload").querySelector(".status"), null, `Sending ${file.name}`, () => upload(file));
}

// What the page listens to

onSubmit("search", "Searching", search);
onSubmit("answer", "Looking and answering", () => {
  const question = textOf("question", "question");
  return askAboutChosen("answer", { question }, (answer) => showAnswer(question, answer));
});
onSubmit("caption", "Writing", () => askAboutChosen("caption", {}, showCaption));
onSubmit("aggregation", "Drawing", () => askAboutChosen(
  "aggregation", { text: textOf("phrase", "phrase") }, (answer) => showDrawings("drawings", "aggregation-part", answer)
));
onSubmit("boxes", "Drawing", () => askAboutChosen("boxes", {}, (answer) => showDrawings("boxes-drawn", "boxes-part", answer)));
byId("upload").addEventListener("submit", (event) => event.preventDefault());
byId("upload-file").addEventListener("change", ({ target }) => { takeFile(target.files[0]); target.value = ""; });
for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  byId("upload").addEventListener(name, (event) => {
    event.preventDefault();
    byId("upload").classList.toggle("over", over);
    if (name === "drop") takeFile(event.dataTransfer.files[0]);
  });
}
const listMorePatiently = () => patiently(byId("search").querySelector(".status"), byId("more"), "Listing", listMore);
byId("more").addEventListener("click", listMorePatiently);
byId("paragraph").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    byId("search").requestSubmit();
  }
});
document.addEventListener("keydown", (event) => {
  const writing = event.target.matches("input, textarea, video");
  if (event.key === "/" && !writing && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    byId("paragraph").focus();
  }
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step && event.target.matches(".hit")) {
    const hits = [...document.querySelectorAll(".hit")];
    event.preventDefault();
    hits[hits.indexOf(event.target) + step]?.focus();
  }
});
byId("to-list").addEventListener("click", (event) => {
  const current = document.querySelector('.hit[aria-current="true"]');
  if (!current) return; // to the head of the list
  event.preventDefault();
  current.focus({ preventScroll: true });
  current.scrollIntoView({ block: "center", inline: "nearest" });
});
byId("results-facts").textContent = `${inGroups(total)} in the index`;
listMorePatiently();
