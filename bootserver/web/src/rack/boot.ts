// A boot as the rack's drawing shows it: all eight steps in their order, each pending, under way, done, awaiting
// the operator or stalled; and for a stalled one its likely cause.

import type { BootStepKind, HostView } from "../api/schema";
import { percent } from "../view/format";
import type { Pulse } from "./model";

export type Lane = {
  kind: BootStepKind;
  label: string;
  is: "pending" | "running" | "done" | "awaited" | "stalled";
  /** Milliseconds it took, or has taken until now; null while pending. */
  took_ms: number | null;
  /** 0 to 100 where bytes are counted and it is under way. */
  percent: number | null;
};

interface Kind {
  label: string;
  /** What happens in it, one clause. */
  does: string;
  /** After so long without progress it counts as stalled, milliseconds. */
  quiet_ms: number;
  cause: string;
}

/** In order. The times are twice and more of what software emulation on two cores needs. */
export const KINDS: Readonly<Record<BootStepKind, Kind>> = {
  dhcp: {
    label: "DHCP",
    does: "asks for an address",
    quiet_ms: 15_000,
    cause: "the machine got an offer and did not take it up: another DHCP server may answer on this network",
  },
  loader: {
    label: "Loader",
    does: "fetches its boot loader by TFTP",
    quiet_ms: 30_000,
    cause: "TFTP packets are lost: look for a firewall or a small MTU between machine and server",
  },
  script: {
    label: "Script",
    does: "fetches its boot script",
    quiet_ms: 45_000,
    cause: "the loader runs and does not reach the server's HTTP port",
  },
  xen: {
    label: "Xen",
    does: "fetches Xen",
    quiet_ms: 45_000,
    cause: "the download stopped: the machine may have been switched off or lost its link",
  },
  kernel: {
    label: "Kernel",
    does: "fetches dom0's kernel",
    quiet_ms: 45_000,
    cause: "the download stopped: the machine may have been switched off or lost its link",
  },
  image: {
    label: "Image",
    does: "fetches dom0's image",
    quiet_ms: 45_000,
    cause:
      "the download stopped: the machine may have been switched off, lost its link or be short of memory",
  },
  start: {
    label: "Start",
    does: "starts Xen and dom0",
    quiet_ms: 240_000,
    cause:
      "Xen or dom0 did not come up, or its agent does not reach the server: look at the machine's console",
  },
  join: {
    label: "Join",
    does: "joins",
    quiet_ms: 60_000,
    cause: "the agent was accepted and does not report: look at the machine's console",
  },
};

export const ORDER = Object.keys(KINDS) as BootStepKind[];

/** The eight steps at the given moment of the server's clock. */
export function lanes(host: HostView, pulse: Pulse | undefined, now_ms: number): Lane[] {
  const steps = new Map(host.boot.map((step) => [step.step, step]));
  const quiet_ms = now_ms - (pulse?.at_ms ?? now_ms);
  const next = host.state === "booting" ? nextOf(host) : undefined;
  return ORDER.map((kind) => {
    const step = steps.get(kind);
    const { label } = KINDS[kind];
    if (step?.took_ms != null) return { kind, label, is: "done", took_ms: step.took_ms, percent: null };
    // The server sees a step when its first packet comes; until then the machine is on its way to it.
    const began_ms = step?.at_ms ?? (kind === next?.kind ? next.at_ms : null);
    const over = host.state === "lost" || host.state === "refused";
    if (began_ms === null || over) return { kind, label, is: "pending", took_ms: null, percent: null };
    return {
      kind,
      label,
      is: standing(kind, host, quiet_ms),
      took_ms: Math.max(0, now_ms - began_ms),
      percent: step && step.bytes_total > 0 ? percent(step.bytes, step.bytes_total) : null,
    };
  });
}

/** The step that a machine is on its way to when none is under way, and since when. */
function nextOf(host: HostView): { kind: BootStepKind; at_ms: number } | undefined {
  const last = host.boot.at(-1);
  if (!last || host.boot.some((step) => step.took_ms == null)) return undefined;
  const kind = ORDER[ORDER.indexOf(last.step) + 1];
  return kind && { kind, at_ms: last.at_ms + (last.took_ms ?? 0) };
}

function standing(kind: BootStepKind, host: HostView, quiet_ms: number): Lane["is"] {
  if (kind === "join" && host.state === "waiting") return "awaited";
  return host.state === "booting" && quiet_ms > KINDS[kind].quiet_ms ? "stalled" : "running";
}

/** From the first packet to the last step's end, or to now; null when no boot was seen. */
export function bootTook(host: HostView, now_ms: number): number | null {
  const first = host.boot[0];
  const last = host.boot.at(-1);
  if (!first || !last) return null;
  return (last.took_ms == null ? now_ms : last.at_ms + last.took_ms) - first.at_ms;
}

/** One sentence on the step under way; empty when none is. What else is awaited the host's note says. */
export function bootSays(of: readonly Lane[]): string {
  const now = of.find((lane) => lane.is === "running" || lane.is === "stalled");
  if (!now) return "";
  const { does, cause } = KINDS[now.kind];
  return now.is === "stalled" ? `Stalled while it ${does}: ${cause}.` : `It ${does}.`;
}
