// Sets the theme before the first paint. Owns: the data-theme attribute.
(function () {
  let chosen = "auto";
  try {
    chosen = localStorage.getItem("tokenweir-theme") || "auto";
  } catch {
    // storage may be forbidden; the system's theme is used then
  }
  document.documentElement.dataset.theme = ["light", "dark"].includes(chosen) ? chosen : "auto";
})();
