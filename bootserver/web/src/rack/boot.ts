// A boot as the rack's drawing shows it: all eight steps in their order, each pending, under way, done, awaiting
// the operator or stalled. Whether it stalls, and why, the server says.

import type { BootStepKind, HostView } from "../api/schema";
import { percent } from "../view/format";

export type Lane = {
  kind: BootStepKind;
  label: string;
  is: "pending" | "running" | "done" | "awaited" | "stalled";
  /** Milliseconds it took, or has taken until now; null while pending. */
  took_ms: number | null;
  /** 0 to 100 where bytes are counted and it is under way. */
  percent: number | null;
  /** Sent so far. */
  bytes: number;
  /** How many times it was asked for again. */
  again: number;
};

interface Kind {
  label: string;
  /** What happens in it, one clause. */
  does: string;
}

/** In order. */
export const KINDS: Readonly<Record<BootStepKind, Kind>> = {
  dhcp: { label: "DHCP", does: "asks for an address" },
  loader: { label: "Loader", does: "fetches its boot loader" },
  script: { label: "Script", does: "fetches its boot script" },
  xen: { label: "Xen", does: "fetches Xen" },
  kernel: { label: "Kernel", does: "fetches dom0's kernel" },
  initrd: { label: "Initrd", does: "fetches dom0's initrd" },
  linux: { label: "Linux", does: "starts Xen and Linux" },
  image: { label: "Image", does: "fetches dom0's image" },
  start: { label: "Start", does: "starts dom0" },
  join: { label: "Join", does: "joins" },
};

export const ORDER = Object.keys(KINDS) as BootStepKind[];

/** All steps at the given moment of the server's clock. */
export function lanes(host: HostView, now_ms: number): Lane[] {
  const steps = new Map(host.boot.map((step) => [step.step, step]));
  const last = host.boot.at(-1);
  // What is begun again and again and gets no further is not done.
  const stuck = host.stalled && (last?.again ?? 0) > 0 ? last : undefined;
  const next = stuck ? undefined : host.state === "booting" ? nextOf(host) : undefined;
  return ORDER.map((kind) => {
    const step = steps.get(kind);
    const { label } = KINDS[kind];
    const sent = { kind, label, bytes: step?.bytes ?? 0, again: step?.again ?? 0 };
    if (step?.took_ms != null && step !== stuck)
      return { ...sent, is: "done", took_ms: step.took_ms, percent: null };
    // The server sees a step when its first packet comes; until then the machine is on its way to it.
    const began_ms = step?.at_ms ?? (kind === next?.kind ? next.at_ms : null);
    const over = host.state === "lost" || host.state === "refused";
    if (began_ms === null || over) return { ...sent, is: "pending", took_ms: null, percent: null };
    return {
      ...sent,
      is: standing(kind, host),
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

function standing(kind: BootStepKind, host: HostView): Lane["is"] {
  if (kind === "join" && host.state === "waiting") return "awaited";
  return host.stalled ? "stalled" : "running";
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
  const { does } = KINDS[now.kind];
  return now.is === "stalled" ? `Stalled while it ${does}.` : `It ${does}.`;
}
