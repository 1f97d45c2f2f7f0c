// A server that speaks the operators' API as far as the page needs it, from a view that a test changes as it goes:
// over https and h2, with the policy that the real one sends. It decides nothing; a test says what it answers.

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createSecureServer } from "node:http2";
import { tmpdir } from "node:os";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

import { emptyRack } from "./rack.mjs";

/**
 * @import { Http2ServerRequest, Http2ServerResponse } from "node:http2"
 * @import { LogEvent, RackView, Refusal } from "../../src/api/schema.d.ts"
 * @typedef {{ method: string, path: string, body: any }} Asked
 */

const DIST = fileURLToPath(new URL("../../dist/", import.meta.url));
export const PASSWORD = "correct horse battery";
export const CODE = "K7QD-2M9X";
const TYPES = /** @type {Record<string, string>} */ ({
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
});
/** As the real server sends it: bootserver/src/operators/page.rs. */
export const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; " +
  "manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

export class Mock {
  /** @type {RackView} */ view = emptyRack();
  /** What was asked, in order, but for reads. @type {Asked[]} */ asked = [];
  /** The whole log, oldest first. @type {LogEvent[]} */ log = [];
  needsSetup = false;
  url = "";
  /** Answers by `METHOD path`. @type {Map<string, { status: number, body: unknown }>} */ #answers =
    new Map();
  /** @type {Set<Http2ServerResponse>} */ #streams = new Set();
  #loggedIn = false;
  #down = false;
  #server;

  constructor() {
    this.#server = createSecureServer({ allowHTTP1: true, ...certificate() }, (request, response) => {
      this.#serve(request, response).catch((error) => {
        console.error("mock server:", error);
        response.stream?.close();
      });
    });
  }

  /** @returns {Promise<string>} its address */
  start() {
    return new Promise((resolve) => {
      this.#server.listen(0, "127.0.0.1", () => {
        const at = this.#server.address();
        if (!at || typeof at === "string") throw new Error("no port");
        this.url = `https://127.0.0.1:${at.port}`;
        resolve(this.url);
      });
    });
  }

  stop() {
    for (const stream of this.#streams) stream.stream.close();
    this.#server.close();
  }

  /** Changes the view and sends it to all that follow. @param {(view: RackView) => void} how */
  change(how) {
    const view = structuredClone(this.view);
    how(view);
    view.version += 1;
    view.at_ms = Date.now();
    this.view = view;
    for (const stream of this.#streams) stream.write(sse(view));
  }

  /** What to answer a request with from now on. @param {string} request @param {unknown} body @param {number} [status] */
  answer(request, body, status = 200) {
    this.#answers.set(request, { status, body });
  }

  /** @param {string} request @param {number} status @param {Refusal} refusal @param {string} message */
  refuse(request, status, refusal, message) {
    this.answer(request, { refusal, message }, status);
  }

  /** Breaks the line, or mends it. @param {boolean} down */
  down(down) {
    this.#down = down;
    if (down) for (const stream of this.#streams) stream.stream.close();
  }

  /** Ends every session. */
  forget() {
    this.#loggedIn = false;
    for (const stream of this.#streams) stream.end();
  }

  get following() {
    return this.#streams.size;
  }

  /** @param {Http2ServerRequest} request @param {Http2ServerResponse} response */
  async #serve(request, response) {
    if (this.#down) return response.stream.close();
    const url = new URL(request.url, this.url);
    if (!url.pathname.startsWith("/v1/")) return file(url.pathname, response);
    const key = `${request.method} ${url.pathname}`;
    let text = "";
    for await (const piece of request) text += piece;
    const body = text ? JSON.parse(text) : null;
    const session = this.#loggedIn && /tsubame_session=s1/.test(request.headers.cookie ?? "");
    if (key === "GET /v1/about")
      return json(response, 200, { version: "0.1.0", needs_setup: this.needsSetup });
    if (key === "POST /v1/setup" || key === "POST /v1/login") return this.#enter(key, body, response);
    if (!session || (request.method !== "GET" && request.headers["x-tsubame"] !== "1")) {
      return json(response, 401, { refusal: { why: "not_logged_in" }, message: "not logged in" });
    }
    if (key === "GET /v1/stream") return this.#follow(response);
    if (key === "GET /v1/events") {
      const after = Number(url.searchParams.get("after"));
      const limit = Number(url.searchParams.get("limit"));
      return json(response, 200, this.log.filter((event) => event.seq > after).slice(0, limit));
    }
    if (request.method !== "GET") this.asked.push({ method: request.method, path: url.pathname, body });
    if (key === "POST /v1/logout") this.forget();
    const set = this.#answers.get(key);
    if (set) return json(response, set.status, set.body);
    return json(response, 200, { did: "done" });
  }

  /** @param {string} key @param {any} body @param {Http2ServerResponse} response */
  #enter(key, body, response) {
    const right = key === "POST /v1/setup" ? body.code === CODE : body.password === PASSWORD;
    if (!right) {
      return json(response, 401, {
        refusal: { why: "wrong_password" },
        message: "the password or code is wrong",
      });
    }
    this.needsSetup = false;
    this.#loggedIn = true;
    response.setHeader("set-cookie", "tsubame_session=s1; HttpOnly; Secure; SameSite=Strict; Path=/");
    return json(response, 200, { token: "t", expires_ms: Date.now() + 3_600_000 });
  }

  /** @param {Http2ServerResponse} response */
  #follow(response) {
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    response.write(sse({ ...this.view, at_ms: Date.now() }));
    this.#streams.add(response);
    response.on("close", () => this.#streams.delete(response));
  }
}

/** @param {RackView} view */
const sse = (view) => `event: rack\ndata: ${JSON.stringify(view)}\n\n`;

/** @param {Http2ServerResponse} response @param {number} status @param {unknown} body */
function json(response, status, body) {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(body));
}

/** @param {string} path @param {Http2ServerResponse} response */
function file(path, response) {
  const name = normalize(path === "/" ? "/index.html" : path);
  try {
    const bytes = readFileSync(join(DIST, name));
    response.writeHead(200, {
      "content-type": TYPES[extname(name)] ?? "application/octet-stream",
      "content-security-policy": POLICY,
      "x-content-type-options": "nosniff",
    });
    response.end(bytes);
  } catch {
    response.writeHead(404);
    response.end();
  }
}

/** A certificate for this run alone. Needs the `openssl` command. */
function certificate() {
  const dir = mkdtempSync(join(tmpdir(), "tsubame-page-"));
  try {
    const args =
      "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1";
    const files = ["-keyout", join(dir, "key.pem"), "-out", join(dir, "cert.pem")];
    execFileSync("openssl", [...args.split(" "), ...files], { stdio: ["ignore", "ignore", "pipe"] });
    return { key: readFileSync(join(dir, "key.pem")), cert: readFileSync(join(dir, "cert.pem")) };
  } finally {
    rmSync(dir, { recursive: true });
  }
}
