// Shows one ranked list at a time. Without JavaScript the page shows all of them.
(() => {
  const viewer = document.getElementById("viewer");
  if (!viewer) return;
  const lists = [...viewer.querySelectorAll(".ranked")];
  const groupButtons = [...viewer.querySelectorAll("[data-group]:is(button)")];
  const stepButtons = [...viewer.querySelectorAll("[data-step]")];
  const counter = viewer.querySelector("output");
  let current = 0;

  function show(index) {
    current = Math.min(Math.max(index, 0), lists.length - 1);
    lists.forEach((list, i) => { list.hidden = i !== current; });
    groupButtons.forEach((button) => {
      button.setAttribute("aria-pressed", button.dataset.group === lists[current].dataset.group);
    });
    stepButtons.forEach((button) => {
      const next = current + Number(button.dataset.step);
      button.disabled = next < 0 || next >= lists.length;
    });
    counter.textContent = `${current + 1} of ${lists.length}`;
  }

  groupButtons.forEach((button) => button.addEventListener("click", () => {
    // Lists are sorted by rising AP, so the best list is the last of its group.
    const group = lists.filter((list) => list.dataset.group === button.dataset.group);
    show(lists.indexOf(button.dataset.group === "best" ? group.at(-1) : group[0]));
  }));
  stepButtons.forEach((button) => button.addEventListener("click", () => {
    show(current + Number(button.dataset.step));
  }));
  viewer.addEventListener("keydown", (event) => {
    const targets = { ArrowLeft: current - 1, ArrowRight: current + 1, Home: 0, End: lists.length - 1 };
    if (event.key in targets) {
      event.preventDefault();
      show(targets[event.key]);
    }
  });
  viewer.querySelector(".controls").hidden = false;
  show(0);
})();
