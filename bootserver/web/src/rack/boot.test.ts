import { expect, test } from "vitest";
import type { BootStep, HostView } from "../api/schema";
import { bootSays, bootTook, lanes } from "./boot";
import { host } from "./fixture";

const done = (step: BootStep["step"], at_ms: number, took_ms: number): BootStep => ({
  step,
  at_ms,
  took_ms,
  bytes: 0,
  bytes_total: 0,
});
const DHCP = done("dhcp", 1_000, 400);
const LOADER = done("loader", 1_400, 1_100);

/** The boot as one line: each step's first letter and how it stands. */
function drawn(boot: BootStep[], now_ms: number, more: Partial<HostView> = {}) {
  const of = host("a", { state: "booting", boot, ...more });
  const drawing = lanes(of, now_ms);
  const line = drawing
    .filter((lane) => lane.is !== "pending")
    .map(
      (lane) => `${lane.label} ${lane.is} ${lane.took_ms}${lane.percent === null ? "" : ` ${lane.percent}%`}`,
    );
  return { line: line.join(", "), says: bootSays(drawing) };
}

test("each step stands where it should", () => {
  const check = (boot: BootStep[], now_ms: number, expected: string, more: Partial<HostView> = {}) =>
    expect(drawn(boot, now_ms, more).line).toBe(expected);
  check([], 5_000, "");
  check([{ ...DHCP, took_ms: null }], 1_300, "DHCP running 300");
  // Between two steps the machine is on its way to the next.
  check([DHCP, LOADER], 3_000, "DHCP done 400, Loader done 1100, Script running 500");
  check(
    [DHCP, { step: "image", at_ms: 2_000, took_ms: null, bytes: 30, bytes_total: 90 }],
    3_000,
    "DHCP done 400, Image running 1000 33%",
  );
  check([DHCP, { ...LOADER, took_ms: null }], 40_000, "DHCP done 400, Loader stalled 38600", {
    stalled: true,
  });
  check([DHCP, LOADER], 60_000, "DHCP done 400, Loader done 1100, Script stalled 57500", { stalled: true });
  // Asked for anew and anew, it is no more than under way.
  check([DHCP, { ...LOADER, again: 4 }], 60_000, "DHCP done 400, Loader stalled 58600", { stalled: true });
  const join = { ...done("join", 9_000, 0), took_ms: null };
  check([DHCP, join], 900_000, "DHCP done 400, Join awaited 891000", { state: "waiting" });
  // No clock runs for a machine that was turned away or is lost.
  check([DHCP, join], 900_000, "DHCP done 400", { state: "refused" });
  check([DHCP, LOADER], 900_000, "DHCP done 400, Loader done 1100", { state: "lost" });
});

test("what it does, or where it stands still", () => {
  expect(drawn([DHCP, LOADER], 60_000, { stalled: true }).says).toBe(
    "Stalled while it fetches its boot script.",
  );
  expect(drawn([DHCP, LOADER], 3_000).says).toBe("It fetches its boot script.");
  expect(drawn([], 0, { state: "registered" }).says).toBe("");
  expect(drawn([DHCP], 0, { state: "waiting" }).says).toBe("");
});

test("a boot lasts from its first packet to its last step's end, or to now", () => {
  expect(bootTook(host("a"), 5)).toBeNull();
  expect(bootTook(host("a", { boot: [DHCP, LOADER] }), 9_999_999)).toBe(1_500);
  expect(bootTook(host("a", { boot: [DHCP, { ...LOADER, took_ms: null }] }), 4_000)).toBe(3_000);
});
