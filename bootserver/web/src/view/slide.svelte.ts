// Lets whatever carries `data-slide` glide from where it was to where it is now when the rack is drawn anew (FLIP:
// first, last, invert, play). It follows the key, not the element: a VM that leaves one host's card and appears
// in another's is one thing to the eye.

const MS = 650;
const EASING = "cubic-bezier(0.3, 0, 0.15, 1)";

/** Call from a component's set-up; `changed` reads what the drawing depends on, `root` gives the drawn element. */
export function slide(changed: () => unknown, root: () => HTMLElement | undefined): void {
  let first = new Map<string, DOMRect>();
  $effect.pre(() => {
    changed();
    first = measure(root());
  });
  $effect(() => {
    changed();
    play(root(), first);
  });
}

function slid(root: HTMLElement | undefined): HTMLElement[] {
  return root ? [...root.querySelectorAll<HTMLElement>("[data-slide]")] : [];
}

function measure(root: HTMLElement | undefined): Map<string, DOMRect> {
  return new Map(
    slid(root).map((element) => [element.dataset["slide"] ?? "", element.getBoundingClientRect()]),
  );
}

function play(root: HTMLElement | undefined, first: ReadonlyMap<string, DOMRect>): void {
  if (first.size === 0 || document.hidden || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  for (const element of slid(root)) {
    const from = first.get(element.dataset["slide"] ?? "");
    if (!from) continue;
    const flying = element.getAnimations().filter((animation) => animation.id === "slide");
    const shown = element.getBoundingClientRect();
    // Still where it was drawn a moment ago, in flight or not: let it be.
    if (flying.length > 0 && near(shown, from)) continue;
    for (const animation of flying) animation.cancel();
    const to = element.getBoundingClientRect();
    if (near(to, from)) continue;
    element.animate(
      [
        { transform: `translate(${from.left - to.left}px, ${from.top - to.top}px)`, zIndex: 5 },
        { transform: "none", zIndex: 5 },
      ],
      { id: "slide", duration: MS, easing: EASING },
    );
  }
}

const near = (a: DOMRect, b: DOMRect) => Math.abs(a.left - b.left) < 1 && Math.abs(a.top - b.top) < 1;
