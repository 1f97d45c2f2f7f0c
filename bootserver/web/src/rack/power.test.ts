import { expect, test } from "vitest";
import type { PowerOrderView, PowerView } from "../api/schema";
import { powerSays } from "./power";

const POWER: PowerView = {
  kind: "ipmi",
  address: "10.9.9.9",
  user: "admin",
  trust: "",
  system: "",
  state: "on",
  at_ms: 1_000,
  failing_since_ms: null,
  failure: "",
  order: null,
};
const ORDER: PowerOrderView = {
  verb: "off",
  network: false,
  stage: "doing",
  asked_ms: 0,
  ended_ms: null,
  tries: 1,
  cause: "",
};

test("what is said of power", () => {
  const says = (more: Partial<PowerView>) => powerSays({ ...POWER, ...more }, 61_000);
  expect(says({})).toEqual({ text: "Power: on", wrong: false });
  expect(says({ state: "unknown", failing_since_ms: 1_000, failure: "BMC 10.9.9.9: no" })).toEqual({
    text: "Power: unknown, its BMC cannot be asked for 1 min: BMC 10.9.9.9: no",
    wrong: true,
  });
  expect(says({ order: ORDER })).toEqual({ text: "Power: off is being done", wrong: false });
  expect(says({ order: { ...ORDER, stage: "asked", cause: "no" } })).toEqual({
    text: "Power: off is ordered, try 2: no",
    wrong: true,
  });
  expect(says({ order: { ...ORDER, stage: "failed", cause: "no" } })).toEqual({
    text: "Power: off was given up: no",
    wrong: true,
  });
  expect(says({ order: { ...ORDER, stage: "done" } })).toEqual({ text: "Power: on", wrong: false });
});
