// Words for the server's states, and the tone each is shown in. The tone is never the only sign.

import type {
  HostState,
  HostView,
  Level,
  MovePhase,
  OnCrash,
  Priority,
  RolloutPhase,
  Stage,
  VmPhase,
} from "../api/schema";

export type Tone = "good" | "busy" | "warn" | "bad" | "calm";

export interface Said {
  text: string;
  tone: Tone;
}

export const HOST: Readonly<Record<HostState, Said>> = {
  registered: { text: "Registered", tone: "calm" },
  booting: { text: "Booting", tone: "busy" },
  waiting: { text: "Waiting", tone: "warn" },
  active: { text: "Active", tone: "good" },
  draining: { text: "Draining", tone: "warn" },
  lost: { text: "Lost", tone: "bad" },
  refused: { text: "Refused", tone: "bad" },
};

/** In place of its state: a lost host that can write nowhere. */
export const FENCED: Said = { text: "Fenced", tone: "bad" };

/** In place of its state: a boot that does not go on. */
export const STALLED: Said = { text: "Stalled", tone: "bad" };

export const VM: Readonly<Record<VmPhase, Said>> = {
  creating: { text: "Creating", tone: "busy" },
  stopped: { text: "Stopped", tone: "calm" },
  starting: { text: "Starting", tone: "busy" },
  running: { text: "Running", tone: "good" },
  paused: { text: "Paused", tone: "warn" },
  moving: { text: "Moving", tone: "busy" },
  stopping: { text: "Stopping", tone: "busy" },
  deleting: { text: "Deleting", tone: "busy" },
  unknown: { text: "Unknown", tone: "bad" },
  failed: { text: "Failed", tone: "bad" },
};

export const MOVE: Readonly<Record<MovePhase, Said>> = {
  preparing: { text: "Preparing", tone: "busy" },
  copying: { text: "Copying", tone: "busy" },
  committing: { text: "Committing", tone: "busy" },
  activating: { text: "Activating", tone: "busy" },
  releasing: { text: "Releasing", tone: "busy" },
  done: { text: "Done", tone: "good" },
  aborting: { text: "Calling off", tone: "warn" },
  aborted: { text: "Called off", tone: "bad" },
};

export const ROLLOUT: Readonly<Record<RolloutPhase, Said>> = {
  canary: { text: "Canaries try it", tone: "busy" },
  rolling: { text: "Rolling out", tone: "busy" },
  done: { text: "Rolled out", tone: "good" },
  stopped: { text: "Stopped", tone: "warn" },
  back: { text: "Going back", tone: "warn" },
  rolled_back: { text: "Rolled back", tone: "bad" },
};

export const STAGE: Readonly<Record<Stage, string>> = {
  preparing: "disks and files are made ready",
  listening: "the target listens",
  copying: "memory is copied",
  stopped: "the guest stands still for the last pages",
  received: "whole at the target, held",
  working: "under way",
};

export const PRIORITY: Readonly<Record<Priority, string>> = {
  high: "started first",
  normal: "started after those of high priority",
  low: "started last",
  never: "not started by itself",
};

export const ON_CRASH: Readonly<Record<OnCrash, string>> = {
  restart: "Start it again",
  stop: "Leave it stopped",
};

export const LEVEL: Readonly<Record<Level, Said>> = {
  info: { text: "info", tone: "calm" },
  warning: { text: "warning", tone: "warn" },
  error: { text: "error", tone: "bad" },
};

export const FIRMWARE = { bios: "BIOS", uefi: "UEFI" } as const;

/** A way from a host's id to the operator's name for it. */
export function namer(hosts: readonly HostView[]): (id: string) => string {
  const names = new Map(hosts.map((host) => [host.id, host.name]));
  return (id) => names.get(id) ?? id;
}
