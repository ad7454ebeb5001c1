"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const study = JSON.parse(byId("study").textContent);
  const STORE = `astro-study-${study.id}`;
  const APART = 0.06; // seconds by which clips may drift before they are aligned
  const letters = "ABCDEFGHIJ";
  const made = (tag, attributes = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), attributes);
    element.append(...children);
    return element;
  };

  // --- what is kept: {rater, at, answers: trial -> {values, seconds, plays}}
  let isKept = true;
  const fresh = () => ({ rater: `rater-${crypto.getRandomValues(new Uint32Array(1))[0].toString(16)}`, at: 0, answers: {} });
  const stored = () => {
    try {
      const found = JSON.parse(localStorage.getItem(STORE));
      return found && typeof found.rater === "string" && found.answers && Number.isInteger(found.at) ? found : null;
    } catch {
      return null;
    }
  };
  let state = stored() || fresh();
  const keep = () => {
    try {
      localStorage.setItem(STORE, JSON.stringify(state));
    } catch {
      isKept = false;
    }
    byId("notice").hidden = isKept;
    byId("notice").textContent = "This browser keeps no answers: save them before you close the page.";
  };
  const say = (text) => (byId("said").textContent = text);

  // --- clips
  let videos = [];
  let began = 0;
  let plays = 0;
  let playing = false;
  const clipUrl = (id) => {
    const source = byId(id);
    const bytes = Uint8Array.from(atob(source.textContent), (letter) => letter.charCodeAt(0));
    return URL.createObjectURL(new Blob([bytes], { type: source.dataset.kind }));
  };
  const duration = (video) => (Number.isFinite(video.duration) ? video.duration : 0);
  const leader = () => videos.reduce((longest, video) => (duration(video) > duration(longest) ? video : longest), videos[0]);
  const seek = (seconds) => videos.forEach((video) => (video.currentTime = Math.min(seconds, Math.max(0, duration(video) - 0.001))));
  const showTime = () => {
    const first = leader();
    byId("time").textContent = `${first.currentTime.toFixed(1)} s`;
    byId("seek").value = duration(first) ? Math.round((1000 * first.currentTime) / duration(first)) : 0;
  };
  const play = () => {
    if (leader().ended) seek(0);
    if (leader().currentTime < APART) plays += 1;
    playing = true;
    byId("play").textContent = "Pause";
    videos.forEach((video) => video.ended || video.play().catch(() => pause()));
    requestAnimationFrame(align);
  };
  const pause = () => {
    playing = false;
    byId("play").textContent = "Play";
    videos.forEach((video) => video.pause());
    seek(leader().currentTime);
  };
  // The longest clip leads. One that has ended keeps its last frame until all start again.
  const align = () => {
    if (!playing) return;
    const first = leader();
    if (first.ended) {
      seek(0);
      plays += 1;
      videos.forEach((video) => video.play().catch(() => pause()));
    } else {
      for (const video of videos)
        if (!video.ended && !video.seeking && Math.abs(video.currentTime - first.currentTime) > APART && first.currentTime < duration(video))
          video.currentTime = first.currentTime;
    }
    showTime();
    requestAnimationFrame(align);
  };
  const toggle = () => (playing ? pause() : play());
  const restart = () => {
    seek(0);
    play();
  };
  const step = (frames) => {
    pause();
    seek(Math.max(0, leader().currentTime + frames / trial().fps));
    showTime();
  };

  // --- questions. `values` of an answer: criterion -> verdict, letter -> score, or letters in order.
  const trial = () => study.trials[state.at];
  const lettersOf = () => trial().clips.map((_, index) => letters[index]);
  let values = {};
  const isComplete = () =>
    study.criteria.every((name) =>
      study.mode === "likert" ? lettersOf().every((letter) => values[name] && values[name][letter]) : Boolean(values[name]));
  const touched = () => (byId("next").disabled = !isComplete());

  const radios = (group, choices, chosen, pick) =>
    choices.map(([value, label]) => {
      const input = made("input", { type: "radio", name: group, value, checked: chosen === value });
      input.addEventListener("change", () => {
        pick(value);
        touched();
      });
      return made("label", {}, input, label);
    });

  const asGsb = (name, index) => {
    const [one, other] = lettersOf();
    const choices = [[one, `${one} is better`], ["same", "No difference"], [other, `${other} is better`]];
    return made("div", { className: "choices" }, ...radios(`q${index}`, choices, values[name], (value) => (values[name] = value)));
  };

  const asLikert = (name, index) => {
    const [low, high] = study.scale;
    const choices = Array.from({ length: high - low + 1 }, (_, i) => [low + i, `${low + i}`]);
    const rows = lettersOf().map((letter) => {
      const row = made("div", { className: "choices" });
      row.setAttribute("role", "radiogroup");
      row.setAttribute("aria-label", `${name}, clip ${letter}`);
      const pick = (value) => ((values[name] ??= {})[letter] = value);
      row.append(made("span", {}, `Clip ${letter}`), ...radios(`q${index}${letter}`, choices, values[name]?.[letter], pick));
      return row;
    });
    return made("div", {}, made("p", { className: "hint" }, `${low} is worst, ${high} is best.`), ...rows);
  };

  const asRank = (name) => {
    const list = made("ol", { className: "order" });
    const items = () => [...list.children];
    const changed = (moved) => {
      items().forEach((item, place) => {
        item.querySelector(".place").textContent = `${place + 1}.`;
        item.setAttribute("aria-label", `Clip ${item.dataset.letter}, place ${place + 1} of ${list.children.length}`);
        item.querySelector(".up").disabled = place === 0;
        item.querySelector(".down").disabled = place === list.children.length - 1;
      });
      if (!moved) return;
      values[name] = items().map((item) => item.dataset.letter);
      say(`Clip ${moved.dataset.letter} is now in place ${items().indexOf(moved) + 1} of ${list.children.length}.`);
      touched();
    };
    const move = (item, by) => {
      const place = items().indexOf(item) + by;
      if (place < 0 || place >= list.children.length) return;
      const hasFocus = list.contains(document.activeElement) && document.activeElement;
      list.insertBefore(item, by < 0 ? list.children[place] : list.children[place].nextSibling);
      changed(item);
      if (hasFocus) (hasFocus.disabled ? item : hasFocus).focus();
    };
    const drag = (item) => (event) => {
      event.preventDefault();
      item.focus();
      item.classList.add("dragged");
      const follow = ({ clientY }) => {
        const over = items().find((other) => other !== item && clientY >= other.getBoundingClientRect().top && clientY <= other.getBoundingClientRect().bottom);
        if (over) list.insertBefore(item, items().indexOf(over) < items().indexOf(item) ? over : over.nextSibling);
      };
      const drop = () => {
        item.classList.remove("dragged");
        removeEventListener("pointermove", follow);
        removeEventListener("pointerup", drop);
        removeEventListener("pointercancel", drop);
        changed(item);
      };
      addEventListener("pointermove", follow);
      addEventListener("pointerup", drop);
      addEventListener("pointercancel", drop);
    };
    for (const letter of values[name] || lettersOf()) {
      const handle = made("span", { className: "handle" }, `Clip ${letter}`);
      const up = made("button", { type: "button", className: "up" }, "↑");
      const down = made("button", { type: "button", className: "down" }, "↓");
      const item = made("li", { tabIndex: 0 }, made("span", { className: "place" }), handle, up, down);
      item.dataset.letter = letter;
      up.setAttribute("aria-label", `Move clip ${letter} up`);
      down.setAttribute("aria-label", `Move clip ${letter} down`);
      up.addEventListener("click", () => move(item, -1));
      down.addEventListener("click", () => move(item, 1));
      handle.addEventListener("pointerdown", drag(item));
      item.addEventListener("keydown", (event) => {
        const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
        if (by) event.preventDefault(), move(item, by);
        if (event.key === "Enter" && event.target === item) event.preventDefault(), byId("answer").requestSubmit();
      });
      list.append(item);
    }
    changed(null);
    const confirm = made("button", { type: "button", className: "confirm" }, "The order is right");
    confirm.addEventListener("click", () => {
      changed(list.firstChild);
      say("The order is kept as it stands.");
    });
    return made("div", {}, made("p", { className: "hint" }, "Best first. Drag, or use the arrows."), list, confirm);
  };

  const kinds = { gsb: asGsb, likert: asLikert, rank: asRank };

  // --- a trial
  const show = (at) => {
    state.at = at;
    keep();
    playing = false;
    videos.forEach((video) => URL.revokeObjectURL(video.src));
    values = structuredClone(state.answers[at]?.values || {});
    [began, plays] = [performance.now(), 0];
    byId("where").textContent = `Trial ${at + 1} of ${study.trials.length}`;
    const several = trial().prompts.length > 1;
    byId("prompts").replaceChildren(
      ...trial().prompts.map(([start, text]) => made("li", {}, ...(several ? [made("span", {}, `${start.toFixed(1)} s`)] : []), text)));
    videos = trial().clips.map((clip, index) => {
      const video = made("video", { src: clipUrl(clip.id), muted: true, playsInline: true, preload: "auto" });
      video.setAttribute("aria-label", `Clip ${letters[index]}`);
      video.addEventListener("click", toggle);
      return video;
    });
    byId("clips").replaceChildren(...videos.map((video, index) => made("figure", {}, made("figcaption", {}, `Clip ${letters[index]}`), video)));
    byId("play").textContent = "Play";
    byId("questions").replaceChildren(
      ...study.criteria.map((name, index) => made("fieldset", {}, made("legend", {}, name), kinds[study.mode](name, index))));
    byId("back").disabled = at === 0;
    byId("time").textContent = "0.0 s";
    byId("seek").value = 0;
    touched();
    count();
  };

  const count = () => {
    const answered = Object.keys(state.answers).length;
    Object.assign(byId("done"), { value: answered, max: study.trials.length });
    byId("export").textContent = `Save answers (${answered} of ${study.trials.length})`;
    byId("export").disabled = !answered;
    byId("lines").value = lines();
    return answered;
  };

  const next = (event) => {
    event.preventDefault();
    if (!isComplete()) return;
    const seconds = Math.round((performance.now() - began) / 100) / 10;
    state.answers[state.at] = { values, seconds, plays };
    const open = study.trials.findIndex((_, index) => index > state.at && !(index in state.answers));
    const left = open >= 0 ? open : study.trials.findIndex((_, index) => !(index in state.answers));
    const isLast = left < 0;
    show(isLast ? state.at : left);
    if (isLast) {
      say("All trials are answered.");
      byId("notice").hidden = false;
      byId("notice").textContent = "All trials are answered: save the answers, and send the file to whoever asked you.";
      byId("export").focus();
    } else {
      byId("where").focus();
      scrollTo({ top: byId("trial").offsetTop - 8 });
    }
  };

  // --- export: the lines that `astro eval gsb|likert|rank` read
  const rows = (at, answer) => {
    const { item, prompts, clips } = study.trials[at];
    const prompt = prompts.length > 1 ? prompts.map(([, text]) => text).join(" | ") : prompts[0][1];
    const labels = { study: study.id, order: clips.map((clip) => study.arms[clip.arm]), seconds: answer.seconds, plays: answer.plays };
    const clip = (letter) => clips[letters.indexOf(letter)];
    const arm = (letter) => study.arms[clip(letter).arm];
    const found = [];
    for (const criterion of study.criteria) {
      const value = answer.values[criterion];
      const facts = { item, prompt, criterion, rater: state.rater, labels };
      if (study.mode === "gsb") {
        const [one, other] = [...clips.keys()].sort((a, b) => clips[a].arm - clips[b].arm).map((index) => letters[index]);
        const verdict = value === "same" ? "S" : value === one ? "G" : "B";
        found.push({ arm: arm(one), other: arm(other), verdict, chosen: clip(one).video, rejected: clip(other).video, ...facts });
      } else if (study.mode === "likert") {
        for (const letter of Object.keys(value)) found.push({ arm: arm(letter), score: value[letter], video: clip(letter).video, ...facts });
      } else {
        value.forEach((letter, place) => found.push({ arm: arm(letter), rank: place + 1, video: clip(letter).video, ...facts }));
      }
    }
    return found;
  };
  const lines = () =>
    Object.keys(state.answers)
      .flatMap((at) => rows(at, state.answers[at]))
      .map((row) => `${JSON.stringify(row)}\n`)
      .join("");
  const save = () => {
    const name = state.rater.replace(/[^\p{L}\p{N}_-]+/gu, "-") || "rater";
    const url = URL.createObjectURL(new Blob([lines()], { type: "application/jsonl" }));
    made("a", { href: url, download: `answers-${name}.jsonl` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
    say("The answers are saved as a file.");
  };

  // --- buttons and keys
  byId("rater").value = state.rater;
  byId("rater").addEventListener("input", ({ target }) => {
    state.rater = target.value.trim();
    keep();
    count();
  });
  byId("play").addEventListener("click", toggle);
  byId("restart").addEventListener("click", restart);
  byId("seek").addEventListener("input", ({ target }) => {
    const at = (target.value / 1000) * duration(leader());
    pause();
    seek(at);
    byId("time").textContent = `${at.toFixed(1)} s`;
  });
  byId("answer").addEventListener("submit", next);
  byId("back").addEventListener("click", () => show(Math.max(0, state.at - 1)));
  byId("export").addEventListener("click", save);
  const reset = byId("reset");
  reset.addEventListener("click", () => {
    if (reset.dataset.sure) {
      state = { ...fresh(), rater: state.rater };
      show(0);
    }
    reset.dataset.sure = reset.dataset.sure ? "" : "yes";
    reset.textContent = reset.dataset.sure ? "Forget all answers: sure?" : "Start over";
  });
  reset.addEventListener("blur", () => {
    reset.dataset.sure = "";
    reset.textContent = "Start over";
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("#rater, textarea")) return;
    const act = { p: toggle, r: restart, ",": () => step(-1), ".": () => step(1) }[event.key.toLowerCase()];
    if (act) event.preventDefault(), act();
  });
  show(Math.min(Math.max(0, state.at), study.trials.length - 1));
})();
