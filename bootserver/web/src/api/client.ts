// Asks the server for things. Every request carries `x-tsubame: 1`, without which the server does not count the
// session's cookie; the page never holds the session's token itself.

import type {
  About,
  Accepted,
  ApiError,
  CreateDisk,
  CreateVm,
  LogEvent,
  PlanView,
  Refusal,
  RegisterHost,
  Session,
} from "./schema";

/** The server said no. `message` is its sentence for a person; `refusal` is what to match on. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly refusal: Refusal,
    message: string,
  ) {
    super(message);
  }
}

/** No answer, or none that can be read. */
export class Unreachable extends Error {}

export const headers = { "x-tsubame": "1" } as const;

/** Reads the body of an answer that is no success. */
export async function refusalOf(answer: Response): Promise<Error> {
  try {
    const { refusal, message } = (await answer.json()) as ApiError;
    if (refusal && message) return new Refused(answer.status, refusal, message);
  } catch {
    // Not the server's own error: a proxy's, say. The status is all there is to tell.
  }
  return new Unreachable(`the server answered ${answer.status} ${answer.statusText}`.trim());
}

async function ask<T>(method: "GET" | "POST" | "DELETE", path: string, body?: unknown): Promise<T> {
  const json = { ...headers, "content-type": "application/json" };
  const init =
    body === undefined ? { method, headers } : { method, headers: json, body: JSON.stringify(body) };
  let answer: Response;
  try {
    answer = await fetch(path, init);
  } catch {
    throw new Unreachable("the server does not answer; is it running, and is the network up?");
  }
  if (!answer.ok) throw await refusalOf(answer);
  return (await answer.json()) as T;
}

const vm = (name: string) => `/v1/vms/${encodeURIComponent(name)}`;
const host = (id: string) => `/v1/hosts/${encodeURIComponent(id)}`;
const disk = (name: string) => `/v1/disks/${encodeURIComponent(name)}`;

export type HostAct = "accept" | "drain" | "undrain";
export type VmAct = "start" | "shutdown" | "destroy" | "pause" | "resume";

export const api = {
  about: () => ask<About>("GET", "/v1/about"),
  setup: (code: string, password: string) => ask<Session>("POST", "/v1/setup", { code, password }),
  login: (password: string) => ask<Session>("POST", "/v1/login", { password }),
  logout: () => ask<Accepted>("POST", "/v1/logout"),
  /** The events after `after`, oldest first. */
  events: (after: number, limit: number) =>
    ask<LogEvent[]>("GET", `/v1/events?after=${after}&limit=${limit}`),
  registerHost: (body: RegisterHost) => ask<Accepted>("POST", "/v1/hosts", body),
  hostAct: (id: string, act: HostAct) => ask<Accepted>("POST", `${host(id)}/${act}`),
  removeHost: (id: string) => ask<Accepted>("DELETE", host(id)),
  createVm: (body: CreateVm) => ask<Accepted>("POST", "/v1/vms", body),
  vmAct: (name: string, act: VmAct) => ask<Accepted>("POST", `${vm(name)}/${act}`),
  deleteVm: (name: string) => ask<Accepted>("DELETE", vm(name)),
  /** `to` null: the planner chooses. */
  migrate: (name: string, to: string | null) => ask<Accepted>("POST", `${vm(name)}/migrate`, { to }),
  console: (name: string) => ask<{ text: string }>("GET", `${vm(name)}/console`),
  createDisk: (body: CreateDisk) => ask<Accepted>("POST", "/v1/disks", body),
  growDisk: (name: string, size_mib: number) => ask<Accepted>("POST", `${disk(name)}/grow`, { size_mib }),
  deleteDisk: (name: string) => ask<Accepted>("DELETE", disk(name)),
  balance: (dry_run: boolean) => ask<PlanView>("POST", "/v1/balance", { dry_run }),
};
