// Lets whatever carries `data-slide` glide from where it was to where it is now when the rack is drawn anew (FLIP:
// first, last, invert, play). It follows the key, not the element: a VM that leaves one host's card and appears
// in another's is one thing to the eye.

const MS = 650;
const EASING = "cubic-bezier(0.3, 0, 0.15, 1)";

/**
 * Call from a component's set-up. `changed` gives a value that differs whenever something may have to glide: only
 * then are places measured, which makes the browser lay the page out. `root` gives the drawn element.
 */
export function slide(changed: () => unknown, root: () => HTMLElement | undefined): void {
  let first: Places = new Map();
  const flights = new Map<HTMLElement, Animation>();
  $effect.pre(() => {
    changed();
    first = measure(slid(root()));
  });
  $effect(() => {
    changed();
    if (!document.hidden && !matchMedia("(prefers-reduced-motion: reduce)").matches)
      play(root(), first, flights);
  });
}

type Places = ReadonlyMap<string, DOMRect>;
type Shift = { x: number; y: number };

const keyOf = (element: HTMLElement) => element.dataset["slide"] ?? "";

function slid(root: HTMLElement | undefined): HTMLElement[] {
  return root ? [...root.querySelectorAll<HTMLElement>("[data-slide]")] : [];
}

function measure(elements: readonly HTMLElement[]): Places {
  return new Map(elements.map((element) => [keyOf(element), element.getBoundingClientRect()]));
}

/** All reads, then all writes: in turns, each read would make the browser lay the page out once more. */
function play(root: HTMLElement | undefined, first: Places, flights: Map<HTMLElement, Animation>): void {
  const elements = slid(root).filter((element) => first.has(keyOf(element)));
  const shown = measure(elements.filter((element) => flights.has(element)));
  const diverted = elements.filter((element) => {
    const now = shown.get(keyOf(element));
    // Still where it was drawn a moment ago, in flight: let it be.
    return !now || !near(now, first.get(keyOf(element)));
  });
  for (const element of diverted) flights.get(element)?.cancel();
  const last = measure(diverted);
  const shift = (element: HTMLElement | null | undefined): Shift => {
    const from = element && first.get(keyOf(element));
    const to = element && last.get(keyOf(element));
    return from && to ? { x: from.left - to.left, y: from.top - to.top } : { x: 0, y: 0 };
  };
  for (const element of diverted) {
    // What it sits in carries it along: only the rest is its own way.
    const whole = shift(element);
    const carried = shift(element.parentElement?.closest<HTMLElement>("[data-slide]"));
    const [x, y] = [whole.x - carried.x, whole.y - carried.y];
    if (Math.abs(x) < 1 && Math.abs(y) < 1) continue;
    const flight = element.animate(
      [
        { transform: `translate(${x}px, ${y}px)`, zIndex: 5 },
        { transform: "none", zIndex: 5 },
      ],
      { duration: MS, easing: EASING },
    );
    flights.set(element, flight);
    const over = () => {
      if (flights.get(element) === flight) flights.delete(element);
    };
    flight.addEventListener("finish", over);
    flight.addEventListener("cancel", over);
  }
}

const near = (a: DOMRect, b: DOMRect | undefined) =>
  b !== undefined && Math.abs(a.left - b.left) < 1 && Math.abs(a.top - b.top) < 1;
