import { expect, test } from "vitest";
import { Refused, Unreachable } from "../api/client";
import type { Refusal } from "../api/schema";
import { event } from "../rack/fixture";
import { check, labelsOf } from "./check";
import { filtered, type Filter } from "./filter";
import { wrongOf } from "./refusal";

test("a refusal is shown beside the field it concerns, else for the whole form", () => {
  const shown = (refusal: Refusal, message = "as the server says it") =>
    wrongOf(new Refused(409, refusal, message), ["name", "mac", "memory_mib", "password"]);
  const at = (field: string | null, text: string) => ({ field, text, rejected: [] });
  expect(shown({ why: "name_taken", name: "web" })).toEqual(at("name", "The name web is taken."));
  expect(shown({ why: "bad_value", field: "memory_mib", given: "1", expected: "16 or more" })).toEqual(
    at("memory_mib", "Expected 16 or more, got “1”."),
  );
  expect(shown({ why: "bad_value", field: "body", given: "1", expected: "" })).toEqual(
    at(null, "As the server says it."),
  );
  expect(shown({ why: "wrong_password" }).field).toBe("password");
  expect(shown({ why: "vm_is", vm: "web", phase: "moving" })).toEqual(at(null, "As the server says it."));
  const rejected = [{ host: "a", why: "too little memory" }];
  expect(shown({ why: "no_place", vm: "web", rejected })).toEqual({
    field: null,
    text: "No host can take web.",
    rejected,
  });
  expect(wrongOf(new Unreachable("the server does not answer"))).toEqual(
    at(null, "The server does not answer."),
  );
});

test("forms check by the server's own rules", () => {
  for (const good of ["a", "web-1", "x".repeat(63)]) expect(check.name(good), good).toBeNull();
  for (const bad of ["", "-a", "a-", "A", "a.b", "ü", "x".repeat(64), "a b"])
    expect(check.name(bad), bad).not.toBeNull();
  for (const good of ["52:54:00:aa:bb:01", "52-54-00-AA-bb-01"]) expect(check.mac(good), good).toBeNull();
  for (const bad of ["", "52:54:00:aa:bb", "52:54:00:aa:bb:0g"]) expect(check.mac(bad), bad).not.toBeNull();
  for (const good of ["16", "64"]) expect(check.whole(good, 16, 64), good).toBeNull();
  for (const bad of ["", "15", "65", "1.5", "-16", "1e2", "16 "])
    expect(check.whole(bad, 16, 64), bad).not.toBeNull();
  expect([check.password("123456789"), check.password("1234567890")].map(Boolean)).toEqual([true, false]);
});

test("the event log's filter", () => {
  const events = [
    event(4, "Lost: no report", { level: "error", host: "h1" }),
    event(3, "stalled", { level: "warning", topic: "boot" }),
    event(2, "web moves", { topic: "move", vm: "web" }),
    event(1, "lease", { topic: "dhcp" }),
  ];
  const seqs = (filter: Partial<Filter>) =>
    filtered(events, { words: "", level: "info", topic: "all", ...filter }, (id) =>
      id === "h1" ? "alpha" : id,
    ).map((each) => each.seq);
  expect(seqs({})).toEqual([4, 3, 2, 1]);
  expect(seqs({ level: "warning" })).toEqual([4, 3]);
  expect(seqs({ topic: "move" })).toEqual([2]);
  expect(seqs({ words: "  ALPHA lost" })).toEqual([4]);
  expect(seqs({ words: "web lost" })).toEqual([]);
});

test("labels as they are typed", () => {
  expect(labelsOf("")).toEqual({});
  expect(labelsOf(" row = a ,power=x=y, ")).toEqual({ row: "a", power: "x=y" });
  for (const bad of ["row", "=a", "row=", "a=b, c"]) expect(labelsOf(bad)).toBe(null);
});
