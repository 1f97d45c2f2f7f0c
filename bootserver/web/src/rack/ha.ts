// What the failure of a host would mean, and how far one that failed is fenced: as sentences.

import type { HostView, RackView } from "../api/schema";
import { age, count, duration, mib } from "../view/format";
import type { Said } from "../view/words";

/** How many hosts may fail; null before there is one that could. */
export function spareOf(view: RackView): Said | null {
  const { ha } = view;
  if (!ha || !view.hosts.some((host) => host.state === "active")) return null;
  if (ha.failures_borne === 0) return { text: "No host may fail", tone: "bad" };
  const says = `${count(ha.failures_borne, "host")} may fail`;
  if (ha.failures_borne > 1) return { text: says, tone: "good" };
  const largest = Math.max(0, ...view.vms.filter((vm) => vm.run).map((vm) => vm.spec.memory_mib));
  const room = ha.room_mib ?? 0;
  return { text: `${says}, with room for ${mib(room)}`, tone: room < largest ? "warn" : "good" };
}

/** How old the newest backup is; null while a server tells of none and of no schedule. */
export function backupOf(view: RackView): Said | null {
  const backups = view.backups;
  if (!backups || (backups.every_s === 0 && backups.files.length === 0)) return null;
  const newest = backups.files[0];
  const text = newest ? `Backup ${age(view.at_ms - newest.taken_ms)} old` : "No backup";
  if (backups.failure) return { text: `${text}, the last failed`, tone: "bad" };
  return { text, tone: backups.late ? "warn" : "good" };
}

/** What a VM of so much memory takes from the rack; empty when nothing. */
export function costOf(view: RackView, memory_mib: number): string {
  const { ha } = view;
  return ha && ha.failures_borne > 0 && memory_mib > (ha.room_mib ?? 0)
    ? "With this VM running no host may fail any more: not all VMs would fit on the others."
    : "";
}

/** How far a host is fenced; empty when it is not. */
export function fenceSays(host: HostView, now_ms: number): string {
  const left_ms = (host.fence_at_ms ?? 0) - now_ms;
  const left = left_ms > 0 ? `, ${duration(Math.ceil(left_ms / 1_000) * 1_000)} more` : "";
  switch (host.fence) {
    case "waiting":
      return `Fence: its lease and watchdog are waited out${left}.`;
    case "power":
      return `Fence: its VMs start elsewhere when it certainly has no power${left}.`;
    case "cutting":
      return `Fence: it is being cut off from its disks${left}.`;
    case "done":
      return "Fence: done. It can write nowhere, and its VMs run elsewhere.";
    default:
      return "";
  }
}
