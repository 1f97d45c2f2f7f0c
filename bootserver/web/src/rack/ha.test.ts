import { expect, test } from "vitest";
import { host, rack, vm } from "./fixture";
import { backupOf, costOf, fenceSays, spareOf } from "./ha";

test("how many hosts may fail, and how near it is to none", () => {
  const ha = (failures_borne: number, room_mib: number) =>
    rack({ hosts: [host("a")], vms: [vm("web", "a", { run: true })], ha: { failures_borne, room_mib } });
  const says = (borne: number, room: number) => {
    const spare = spareOf(ha(borne, room));
    return `${spare?.tone}: ${spare?.text}`;
  };
  expect(says(0, 0)).toBe("bad: No host may fail");
  expect(says(1, 95)).toBe("warn: 1 host may fail, with room for 95 MiB");
  expect(says(1, 96)).toBe("good: 1 host may fail, with room for 96 MiB");
  expect(says(3, 900)).toBe("good: 3 hosts may fail");
  expect(spareOf(rack({ ha: { failures_borne: 0 } }))).toBe(null);
  expect(costOf(ha(1, 96), 96)).toBe("");
  expect(costOf(ha(1, 96), 97)).toContain("no host may fail");
  expect(costOf(ha(0, 0), 97)).toBe("");
});

test("fences in words", () => {
  const fence = (more: Parameters<typeof host>[1]) => fenceSays(host("a", more), 1_000);
  expect(fence({})).toBe("");
  expect(fence({ fence: "waiting", fence_at_ms: 13_400 })).toBe(
    "Fence: its lease and watchdog are waited out, 13 s more.",
  );
  expect(fence({ fence: "waiting", fence_at_ms: null })).toBe(
    "Fence: its lease and watchdog are waited out.",
  );
  expect(fence({ fence: "power", fence_at_ms: null })).toBe(
    "Fence: its VMs start elsewhere when it certainly has no power.",
  );
  expect(fence({ fence: "cutting", fence_at_ms: 900 })).toBe("Fence: it is being cut off from its disks.");
  expect(fence({ fence: "done" })).toContain("elsewhere");
});

test("backups", () => {
  const at = (hours: number, late: boolean, failure: string | null = null) => {
    const view = rack({ hosts: [], vms: [] });
    const files = hours < 0 ? [] : [{ name: "b", taken_ms: view.at_ms - hours * 3_600_000, bytes: 1 }];
    view.backups = { directory: "/b", every_s: 3_600, keep: 24, files, failure, late };
    const said = backupOf(view);
    return `${said?.tone}: ${said?.text}`;
  };
  expect(at(1, false)).toBe("good: Backup 1 h old");
  expect(at(3, true)).toBe("warn: Backup 3 h old");
  expect(at(-1, true, "full")).toBe("bad: No backup, the last failed");
});
