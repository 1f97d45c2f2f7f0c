import { expect, test } from "vitest";
import { host, move, rack, vm } from "./fixture";
import { layoutOf, placesOf } from "./places";

test("a VM is drawn in one place, and where it is going as an outline", () => {
  const view = rack({
    hosts: [host("a"), host("b")],
    vms: [
      vm("gone", "nobody"),
      vm("here", "a"),
      vm("off", "a", { phase: "stopped" }),
      vm("there", "b", { phase: "moving" }),
      vm("moving", "a", { phase: "moving" }),
    ],
    moves: [
      move(4, "moving", "a", "b"),
      move(3, "there", "a", "b", { phase: "activating" }),
      move(2, "here", "b", "a", { phase: "done" }),
      move(1, "deleted", "a", "b"),
    ],
  });
  const places = placesOf(view);
  const names = (vms: readonly { spec: { name: string } }[] = []) => vms.map((each) => each.spec.name);
  expect(names(places.on.get("a"))).toEqual(["here", "moving"]);
  expect(names(places.on.get("b"))).toEqual(["there"]);
  expect(names(places.shelf)).toEqual(["gone", "off"]);
  expect(places.arriving.get("b")?.map((each) => each.vm)).toEqual(["moving"]);
  expect([...places.moving.keys()]).toEqual(["moving", "there", "deleted"]);
});

test("the layout changes with places alone", () => {
  const view = rack({
    hosts: [host("a"), host("b")],
    vms: [vm("x", "a"), vm("y", null, { phase: "stopped" })],
  });
  const layout = (more: Partial<typeof view>) =>
    layoutOf({ ...view, ...more }, placesOf({ ...view, ...more }));
  const same = layout({});
  expect(layout({ at_ms: 9, hosts: [host("a", { note: "hm" }), host("b")] })).toBe(same);
  for (const other of [
    { vms: [vm("x", "b"), vm("y", null, { phase: "stopped" })] },
    { vms: [vm("x", "a"), vm("y", "a")] },
    { hosts: [host("a"), host("b", { state: "lost" })] },
    { moves: [move(1, "x", "a", "b")] },
  ]) {
    expect(layout(other)).not.toBe(same);
  }
});
