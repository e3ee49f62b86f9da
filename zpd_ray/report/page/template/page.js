"use strict";
(() => {
  const byId = (name) => document.getElementById(name);

  // Labels of the plots' marks, where a pointer or a finger is.
  const tip = byId("tip");
  const show = (event) => {
    const mark = event.target.closest && event.target.closest(".plot [aria-label][aria-roledescription]");
    const label = mark && mark.closest("svg") && mark.getAttribute("aria-label");
    const said = label && !/^(X|Y)-axis|legend/.test(label) ? label : "";
    tip.hidden = !said;
    if (!said) return;
    tip.textContent = said;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - box.width - 4))}px`;
    tip.style.top = `${Math.max(4, event.clientY - box.height - 12)}px`;
  };
  document.addEventListener("pointermove", show);
  document.addEventListener("pointerdown", show);
  document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

  // Light and dark: as the system has it, or as asked.
  const theme = byId("theme");
  const themes = ["auto", "light", "dark"];
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const next = themes[(themes.indexOf(document.documentElement.dataset.theme || "auto") + 1) % themes.length];
    document.documentElement.dataset.theme = next;
    theme.textContent = `Theme: ${next}`;
  });

  // Items: all words have to be there, in any order.
  const items = [...document.querySelectorAll(".item")];
  const texts = items.map((item) => item.textContent.toLowerCase());
  const [words, kind, stage, count] = ["words", "kind", "stage", "count"].map(byId);
  const filter = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    items.forEach((item, i) => {
      const fits = (!kind.value || item.dataset.kind === kind.value)
        && (!stage.value || item.dataset.stage === stage.value)
        && wanted.every((word) => texts[i].includes(word));
      item.hidden = !fits;
      left += fits;
    });
    count.textContent = `${left} of ${items.length} items`;
  };
  byId("search").hidden = false;
  byId("search").addEventListener("submit", (event) => event.preventDefault());
  for (const input of [words, kind, stage]) input.addEventListener("input", filter);
  filter();
})();
