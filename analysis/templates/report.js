startFigures();
startTables();
startFilters();
startRuns();
all(".download").forEach((button) => button.addEventListener("click", () => download(button.closest("figure"))));
all(".copy").forEach((button) => button.addEventListener("click", () => {
  const code = button.parentElement.querySelector("code"), range = document.createRange();
  range.selectNodeContents(code);
  getSelection().removeAllRanges();
  getSelection().addRange(range);
  // Without a clipboard, as in a page of a file in some browsers, the text stays selected.
  if (navigator.clipboard) navigator.clipboard.writeText(code.textContent).then(() => { button.textContent = "Copied"; }, () => {});
}));
