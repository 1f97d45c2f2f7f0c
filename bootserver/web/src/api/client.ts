// Asks the server for things. Paths, bodies and answers are typed by the server's own OpenAPI document. Every request
// carries `x-tsubame: 1`, without which the server does not count the session's cookie; the page never holds the
// session's token itself.

import type {
  ApiError,
  CreateDisk,
  CreateVm,
  DescribeHost,
  HostList,
  paths,
  PowerVerb,
  Refusal,
  RegisterHost,
  Restart,
  StartRollout,
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

type Method = "get" | "post" | "delete";
type Json<T> = { content: { "application/json": T } };
/** Paths that have this method and answer in JSON. */
type PathOf<M extends Method> = {
  [P in keyof paths]: paths[P][M] extends { responses: { 200: Json<unknown> } } ? P : never;
}[keyof paths];
type Answer<M extends Method, P extends keyof paths> = paths[P][M] extends {
  responses: { 200: Json<infer T> };
}
  ? T
  : never;
type Body<M extends Method, P extends keyof paths> = paths[P][M] extends { requestBody: Json<infer T> }
  ? T
  : null;

interface Asked<M extends Method, P extends keyof paths> {
  /** What stands for `{id}` in the path. */
  id?: string;
  query?: Record<string, number>;
  body: Body<M, P>;
}

async function ask<M extends Method, P extends PathOf<M>>(
  method: M,
  path: P,
  { id = "", query = {}, body }: Asked<M, P>,
): Promise<Answer<M, P>> {
  const pairs = Object.entries(query).map(([key, value]) => [key, String(value)]);
  const search = pairs.length > 0 ? `?${new URLSearchParams(pairs).toString()}` : "";
  const init: RequestInit = { method: method.toUpperCase(), headers };
  if (body !== null) {
    init.headers = { ...headers, "content-type": "application/json" };
    init.body = JSON.stringify(body);
  }
  const answer = await fetch(path.replace("{id}", encodeURIComponent(id)) + search, init).catch(() => {
    throw new Unreachable("the server does not answer; is it running, and is the network up?");
  });
  if (!answer.ok) throw await refusalOf(answer);
  return (await answer.json()) as Answer<M, P>;
}

export type HostAct = "accept" | "drain" | "undrain" | "confirm-off";
export type VmAct = "start" | "shutdown" | "destroy" | "pause" | "resume";

export const api = {
  about: () => ask("get", "/v1/about", { body: null }),
  setup: (code: string, password: string) => ask("post", "/v1/setup", { body: { code, password } }),
  login: (password: string) => ask("post", "/v1/login", { body: { password } }),
  logout: () => ask("post", "/v1/logout", { body: null }),
  /** The events after `after`, oldest first. */
  events: (after: number, limit: number) => ask("get", "/v1/events", { query: { after, limit }, body: null }),
  registerHost: (body: RegisterHost) => ask("post", "/v1/hosts", { body }),
  /** Machines to be let in when they come: CSV or YAML. */
  listHosts: (body: HostList) => ask("post", "/v1/hosts/list", { body }),
  describeHost: (id: string, body: DescribeHost) => ask("post", "/v1/hosts/{id}/describe", { id, body }),
  hostAct: (id: string, act: HostAct) => ask("post", `/v1/hosts/{id}/${act}`, { id, body: null }),
  hostLog: (id: string) => ask("get", "/v1/hosts/{id}/log", { id, body: null }),
  power: (id: string, verb: PowerVerb, network: boolean) =>
    ask("post", "/v1/hosts/{id}/power", { id, body: { verb, network } }),
  removeHost: (id: string) => ask("delete", "/v1/hosts/{id}", { id, body: null }),
  createVm: (body: CreateVm) => ask("post", "/v1/vms", { body }),
  vmAct: (id: string, act: VmAct) => ask("post", `/v1/vms/{id}/${act}`, { id, body: null }),
  deleteVm: (id: string) => ask("delete", "/v1/vms/{id}", { id, body: null }),
  /** `to` null: the planner chooses. */
  migrate: (id: string, to: string | null) => ask("post", "/v1/vms/{id}/migrate", { id, body: { to } }),
  /** In which order it is started again after its host has failed. */
  setRestart: (id: string, body: Restart) => ask("post", "/v1/vms/{id}/ha", { id, body }),
  console: (id: string) => ask("get", "/v1/vms/{id}/console", { id, body: null }),
  createDisk: (body: CreateDisk) => ask("post", "/v1/disks", { body }),
  growDisk: (id: string, size_mib: number) => ask("post", "/v1/disks/{id}/grow", { id, body: { size_mib } }),
  deleteDisk: (id: string) => ask("delete", "/v1/disks/{id}", { id, body: null }),
  deleteRelease: (id: string) => ask("delete", "/v1/releases/{id}", { id, body: null }),
  startRollout: (id: string, body: StartRollout) => ask("post", "/v1/pools/{id}/rollout", { id, body }),
  stopRollout: (id: string) => ask("post", "/v1/pools/{id}/stop", { id, body: null }),
  /** The hosts that vanished are dead. */
  thaw: () => ask("post", "/v1/thaw", { body: null }),
  balance: (dry_run: boolean) => ask("post", "/v1/balance", { body: { dry_run } }),
};
