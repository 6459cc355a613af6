// The button that copies the command.
const copy = document.getElementById("copy");
copy?.addEventListener("click", () => {
  const code = copy.previousElementSibling, range = document.createRange();
  range.selectNodeContents(code);
  const selection = getSelection();
  selection.removeAllRanges();
  selection.addRange(range);
  document.execCommand("copy");
  copy.textContent = "Copied";
  setTimeout(() => { copy.textContent = "Copy"; selection.removeAllRanges(); }, 1500);
});
