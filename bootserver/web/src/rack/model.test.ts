import { expect, test } from "vitest";
import type { RackView } from "../api/schema";
import { event, host, loaded, move, rack } from "./fixture";
import { EVENTS_MAX, SAMPLES_MAX, take, withOlder, type Model } from "./model";

const after = (views: RackView[]) =>
  views.reduce<Model | null>((model, view) => take(model, view, view.at_ms), null);

test("the server's clock is followed, not ours", () => {
  expect(take(null, rack({ at_ms: 5_000 }), 1_200).skew_ms).toBe(3_800);
});

test("load is kept once a report, bounded, and forgotten with the host", () => {
  const views = Array.from({ length: SAMPLES_MAX + 50 }, (_, i) =>
    rack({ at_ms: i * 2_000, hosts: [loaded("a", i, 1_000)] }),
  );
  const model = after(views);
  const load = model?.load.get("a") ?? [];
  expect(load).toHaveLength(SAMPLES_MAX);
  expect(load.at(-1)).toEqual({ at_ms: (SAMPLES_MAX + 49) * 2_000, cpu: SAMPLES_MAX + 49, memory: 1_048 });
  // A view for another reason, half a second later: the numbers are the old report's.
  const again = take(model, rack({ ...views.at(-1), at_ms: (SAMPLES_MAX + 49) * 2_000 + 500 }), 0);
  expect(again.load.get("a")).toBe(load);
  expect(take(again, rack({ at_ms: 9e9, hosts: [host("a", { state: "lost" })] }), 0).load.get("a")).toEqual(
    [],
  );
});

test("events are put together without repeats, newest first, and bounded", () => {
  const first = take(null, rack({ events: [event(5, "e"), event(4, "d")] }), 0);
  const second = take(first, rack({ events: [event(6, "f"), event(5, "e")] }), 0);
  expect(second.events.map((each) => each.seq)).toEqual([6, 5, 4]);
  expect(withOlder(second, [event(2, "b"), event(3, "c")]).events.map((each) => each.seq)).toEqual([
    6, 5, 4, 3, 2,
  ]);
  const many = Array.from({ length: EVENTS_MAX + 10 }, (_, i) => event(i + 10, "x"));
  expect(withOlder(second, many).events).toHaveLength(EVENTS_MAX);
  // Nothing new: the very same list, so that nothing is drawn anew.
  expect(take(second, rack({ events: [event(6, "f")] }), 0).events).toBe(second.events);
});

test("news are what a person at the rack would call out", () => {
  const a = host("a", { name: "alpha" });
  const b = host("b", { name: "beta", state: "booting" });
  const before = rack({ hosts: [a, b], moves: [], events: [event(1, "old", { level: "error" })] });
  const said = (view: Partial<RackView>) =>
    take(take(null, before, 0), rack({ ...before, ...view }), 0).news.map((piece) => piece.text);
  expect(said({})).toEqual([]);
  expect(said({ hosts: [a, { ...b, state: "waiting" }] })).toEqual(["beta waits to be accepted"]);
  expect(said({ moves: [move(1, "web", "a", "b")] })).toEqual(["web moves from alpha to beta"]);
  expect(said({ moves: [move(1, "web", "a", "b", { phase: "done", downtime_ms: 312 })] })).toEqual([
    "web now runs on beta, stood still for 312 ms",
  ]);
  expect(said({ moves: [move(1, "web", "a", "b", { phase: "aborted" })] })).toEqual([
    "the move of web was called off; it stays on alpha",
  ]);
  const logged = [
    event(3, "lost", { level: "error" }),
    event(2, "fine"),
    event(1, "old", { level: "error" }),
  ];
  expect(said({ events: logged })).toEqual(["error: lost"]);
  const twice = [
    { ...b, state: "waiting" as const },
    { ...b, state: "active" as const },
  ].map((each) => rack({ hosts: [each] }));
  expect(after([before, ...twice])?.news).toEqual([
    { id: 1, text: "beta waits to be accepted" },
    { id: 2, text: "beta is active" },
  ]);
  const crowd = Array.from({ length: 9 }, (_, i) => host(`h${i}`, { state: "booting" }));
  expect(said({ hosts: crowd })).toHaveLength(5);
  expect(said({ hosts: crowd }).at(-1)).toBe("and 5 more changes");
});
