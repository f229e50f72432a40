/** Northwind's own script: the company switcher and the export button. Text is only ever set as text. */

const switcher = document.querySelector(".switch");
switcher.classList.add("ready");
switcher.addEventListener("change", () => switcher.requestSubmit());

const columns = document.querySelector(".columns");
for (const name of ["plangate-ready", "plangate-error"]) {
  // One frame later, when the plan above has its final height.
  const show = () => requestAnimationFrame(() => requestAnimationFrame(() => columns.classList.add("ready")));
  document.querySelector("#manager")?.addEventListener(name, show);
}

const form = document.querySelector("#export");
form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  const result = document.querySelector("#result");
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  let answer;
  try {
    const response = await fetch(form.action, { method: "POST", headers: { Accept: "application/json" } });
    answer = await response.json();
  } catch {
    answer = { ok: false, text: "We couldn't reach Northwind just now. Your note is safe: try again shortly." };
  }
  button.removeAttribute("aria-disabled");
  const text = document.createElement("p");
  text.textContent = answer.text;
  result.replaceChildren(text);
  if (answer.href) {
    const link = document.createElement("a");
    link.href = answer.href;
    link.textContent = answer.way_out;
    result.append(link);
  }
  result.className = "result " + (answer.ok ? "yes" : "no");
  result.hidden = false;
  for (const meter of document.querySelectorAll("plangate-usage")) meter.refresh?.();
});
