// Tries `live.mjs` itself, before there is a real rack, on a mock that plays one: it must pass where all goes well
// and fail where it does not.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";
import { boot, host, move, vm } from "./mock/rack.mjs";
import { CODE, Mock } from "./mock/server.mjs";

const LIVE = fileURLToPath(new URL("live.mjs", import.meta.url));
/** @type {Mock} */ let mock;
/** @type {string} */ let dir;
/** @type {ReturnType<typeof live> | undefined} */ let ran;

beforeEach(async () => {
  mock = new Mock();
  mock.needsSetup = true;
  await mock.start();
  dir = mkdtempSync(join(tmpdir(), "tsubame-live-"));
});
afterEach(async () => {
  // After a test that failed it may still run.
  ran?.child.kill();
  await ran?.ended;
  mock.stop();
  rmSync(dir, { recursive: true });
});

/** Runs it. @param {string[]} options */
function live(...options) {
  const child = spawn(process.execPath, [LIVE, mock.url, CODE, "--shots", dir, ...options]);
  let out = "";
  let err = "";
  child.stdout.on("data", (text) => (out += text));
  child.stderr.on("data", (text) => (err += text));
  /** @type {Promise<{ code: number | null, out: string, err: string }>} */
  const ended = new Promise((resolve) => child.on("close", (code) => resolve({ code, out, err })));
  let over = false;
  void ended.then(() => (over = true));
  /** Waits for what is found; fails with what `live.mjs` says once that has ended. @template T @param {() => T} find */
  const until = async (find) => {
    for (;;) {
      const found = find();
      if (found) return found;
      if (over) assert.fail(`it ended too early: ${err}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  return { child, ended, until };
}

/** Plays a rack: answers what is asked by changing the view. @param {ReturnType<typeof live>["until"]} until */
function play(until) {
  const alpha = host(1, "alpha", "active");
  const beta = host(2, "beta", "booting", { boot: boot(Date.now() - 3_000, "kernel", false) });
  mock.change((view) => Object.assign(view, { hosts: [alpha, beta] }));
  mock.answer("POST /v1/vms", { did: "begun" });
  return {
    alpha,
    beta,
    asked: (/** @type {RegExp} */ path) => until(() => mock.asked.find((each) => path.test(each.path))),
    /** @param {(view: Mock["view"]) => void} how */
    soon: async (how) => {
      await until(() => mock.following > 0);
      await new Promise((resolve) => setTimeout(resolve, 600));
      mock.change(how);
    },
  };
}

test("it passes where hosts boot, are accepted, and a VM is made and moves", async () => {
  ran = live("--hosts", "2", "--accept", "1", "--template", "tiny", "--migrate", "--timeout", "600");
  const { until, ended } = ran;
  const { alpha, beta, asked, soon } = play(until);
  const up = host(2, "beta", "active");
  await soon((view) => {
    view.hosts = [alpha, host(2, "beta", "waiting", { boot: boot(Date.now() - 60_000, "join", false) })];
  });
  await asked(/accept$/);
  await soon((view) => (view.hosts = [alpha, up]));
  const { body } = await asked(/^\/v1\/vms$/);
  await soon((view) => (view.vms = [vm(body.name, alpha.id)]));
  mock.answer(`POST /v1/vms/${body.name}/migrate`, { did: "moving", move: 1 });
  assert.deepEqual((await asked(/migrate$/)).body, { to: beta.id });
  await soon((view) => {
    view.vms = [vm(body.name, alpha.id, "moving", { move: 1 })];
    view.moves = [move(1, body.name, alpha, up, { phase: "copying" })];
  });
  await until(() => existsSync(join(dir, "live-moving.png")));
  await soon((view) => {
    view.vms = [vm(body.name, up.id)];
    view.moves = [
      move(1, body.name, alpha, up, { phase: "done", ended_ms: Date.now(), total_ms: 900, downtime_ms: 80 }),
    ];
  });
  const { code, out, err } = await ended;
  assert.equal(code, 0, err);
  for (const seen of ["boot step", "accepted by keyboard", "VM runs", "moved", "axe finds nothing", "all"]) {
    assert.match(out, new RegExp(`"seen":"${seen}"`));
  }
});

test("it fails where no host has to be accepted, though one should have been", async () => {
  mock.change((view) => (view.hosts = [host(1, "alpha", "active")]));
  ran = live("--hosts", "1", "--accept", "1", "--timeout", "600");
  const { code, err } = await ran.ended;
  assert.equal(code, 1);
  assert.match(err, /0 hosts were accepted by keyboard, 1 expected/);
});

test("it fails where hosts do not come up in time", async () => {
  ran = live("--hosts", "1", "--accept", "0", "--timeout", "6");
  const { code, err } = await ran.ended;
  assert.equal(code, 1);
  assert.match(err, /0 of 1 hosts became active in time/);
});
