import { expect, test } from "vitest";
import { SseParser } from "./sse";

const STREAM =
  ': hello\r\nevent: rack\r\ndata: {"a":1}\r\n\r\ndata: two\ndata:lines\n\nid: 7\rdata: last\r\rdata: unfinished';
const EVENTS = [
  { event: "rack", data: '{"a":1}' },
  { event: "message", data: "two\nlines" },
  { event: "message", data: "last" },
];

test("events come out whole wherever the stream is cut", () => {
  for (let cut = 0; cut <= STREAM.length; cut += 1) {
    const parser = new SseParser();
    const found = [...parser.feed(STREAM.slice(0, cut)), ...parser.feed(STREAM.slice(cut))];
    expect(found, `cut at ${cut}`).toEqual(EVENTS);
  }
  const byLetter = new SseParser();
  expect([...STREAM].flatMap((letter) => byLetter.feed(letter))).toEqual(EVENTS);
});

test("an event without data is none, and forgets its name", () => {
  expect(new SseParser().feed("event: rack\n\ndata: x\n\n")).toEqual([{ event: "message", data: "x" }]);
});
