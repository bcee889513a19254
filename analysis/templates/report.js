startFigures();
startTables();
startFilters();
startRuns();
all(".download").forEach((button) => button.addEventListener("click", () => download(button.closest("figure"))));
