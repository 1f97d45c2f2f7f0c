// What is said of a host's power.

import type { PowerView } from "../api/schema";
import { age } from "../view/format";

/** One line; `wrong` when somebody should look. */
export function powerSays(power: PowerView, now_ms: number): { text: string; wrong: boolean } {
  const { order } = power;
  if (order && (order.stage === "asked" || order.stage === "doing")) {
    const again = order.cause
      ? `, try ${order.tries + (order.stage === "asked" ? 1 : 0)}: ${order.cause}`
      : "";
    return {
      text: `Power: ${order.verb} is ${order.stage === "asked" ? "ordered" : "being done"}${again}`,
      wrong: again !== "",
    };
  }
  if (order?.stage === "failed")
    return { text: `Power: ${order.verb} was given up: ${order.cause}`, wrong: true };
  if (power.failing_since_ms != null) {
    return {
      text: `Power: unknown, its BMC cannot be asked for ${age(now_ms - power.failing_since_ms)}: ${power.failure}`,
      wrong: true,
    };
  }
  return { text: `Power: ${power.state}`, wrong: false };
}
