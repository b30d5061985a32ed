// The findings that contain what is searched for, each check opened that has one.
const search = document.querySelector("input[type=search]"), checks = [...document.querySelectorAll(".check")];

search.addEventListener("input", () => {
  const wanted = search.value.trim().toLowerCase();
  let found = 0;
  for (const check of checks) {
    let some = 0;
    for (const row of check.querySelectorAll("tbody tr")) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
      some += !row.hidden;
    }
    check.hidden = !some;
    check.open = Boolean(wanted && some);
    found += some;
  }
  document.getElementById("found").textContent = wanted ? `${found} found` : "";
});

document.addEventListener("keydown", (event) => {
  if (event.key === "/" && event.target !== search) {
    event.preventDefault();
    search.focus();
  } else if (event.key === "Escape" && event.target === search) search.blur();
});
