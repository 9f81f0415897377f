// Text that stands out too little from what is behind it: less than 4.5 to 1, as WCAG 2.2 asks for.
() => {
  const linear = (n) => (n <= 0.04045 ? n / 12.92 : ((n + 0.055) / 1.055) ** 2.4);
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\d.]+/g).map((n) => linear(n / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (/^rgb\(/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const ratio = (e) => {
    const style = getComputedStyle(e);
    const rect = e.closest("g")?.querySelector("rect"); // text in a bar
    const ink = e.namespaceURI.endsWith("svg") ? style.fill : style.color;
    const [a, b] = [light(ink), light(rect ? getComputedStyle(rect).fill : behind(e))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const says = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  const texts = [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility() && says(e));
  return texts.map((e) => [ratio(e).toFixed(2), e.textContent]).filter(([found]) => found < 4.5);
}
