// Shows one ranked list at a time. Without this all of them stand below one another.
(() => {
  const viewer = document.getElementById("viewer");
  if (!viewer) return;
  const lists = [...viewer.querySelectorAll(".ranked")];
  const groups = [...viewer.querySelectorAll("[data-group]:is(button)")];
  const steps = [...viewer.querySelectorAll("[data-step]")];
  const where = viewer.querySelector("output");
  let current = 0;

  function show(index) {
    current = Math.min(Math.max(index, 0), lists.length - 1);
    lists.forEach((list, i) => { list.hidden = i !== current; });
    groups.forEach((button) => {
      button.setAttribute("aria-pressed", button.dataset.group === lists[current].dataset.group);
    });
    steps.forEach((button) => {
      const next = current + Number(button.dataset.step);
      button.disabled = next < 0 || next >= lists.length;
    });
    where.textContent = `${current + 1} of ${lists.length}`;
  }

  groups.forEach((button) => button.addEventListener("click", () => {
    // The best comes first when it is asked for; the lists rise by AP.
    const ofGroup = lists.filter((list) => list.dataset.group === button.dataset.group);
    show(lists.indexOf(button.dataset.group === "best" ? ofGroup.at(-1) : ofGroup[0]));
  }));
  steps.forEach((button) => button.addEventListener("click", () => {
    show(current + Number(button.dataset.step));
  }));
  viewer.addEventListener("keydown", (event) => {
    const places = { ArrowLeft: current - 1, ArrowRight: current + 1, Home: 0, End: lists.length - 1 };
    if (event.key in places) {
      event.preventDefault();
      show(places[event.key]);
    }
  });
  viewer.querySelector(".controls").hidden = false;
  show(0);
})();
