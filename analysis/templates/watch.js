// Beside the report's own script, in what `python -m analysis watch` serves: loads a newer report when there is one.
(function () {
  const version = "VERSION", key = "sbbridge-watch", every = 2000;
  const bar = document.createElement("div");
  bar.setAttribute("role", "status");
  bar.id = "watch";
  bar.style.cssText = "position:fixed;right:8px;bottom:8px;z-index:10;padding:4px 10px;border-radius:6px;" +
    "font:12px system-ui,sans-serif;color:#fff;background:#3d444d;max-width:calc(100vw - 40px)";
  document.body.append(bar);

  // What the reader sees stays: where the page is scrolled to, and what the filters have switched off.
  const boxes = () => [...document.querySelectorAll("#filters input")];
  const name = (box) => box.closest("fieldset").dataset.facet + "=" + box.value;
  history.scrollRestoration = "manual";
  const kept = JSON.parse(sessionStorage.getItem(key) || "null");
  sessionStorage.removeItem(key);
  if (kept) {
    const off = boxes().filter((box) => kept.off.includes(name(box)));
    off.forEach((box) => { box.checked = false; });
    if (off.length) off[0].dispatchEvent(new Event("change", { bubbles: true }));
    addEventListener("load", () => scrollTo(0, kept.scroll));
  }

  async function look() {
    try {
      const status = await (await fetch("/status", { cache: "no-store" })).json();
      if (status.version !== version) {
        const off = boxes().filter((box) => !box.checked).map(name);
        sessionStorage.setItem(key, JSON.stringify({ scroll: scrollY, off: off }));
        location.reload();
        return;
      }
      bar.textContent = status.error ? "no newer report: " + status.error : status.state;
    } catch {
      bar.textContent = "python -m analysis watch has ended: this is the last report that it made";
    }
    setTimeout(look, every);
  }
  look();
})();
