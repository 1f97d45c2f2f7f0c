// One request that a button or form makes: whether it is under way, and what went wrong with it.

import { Refused } from "../api/client";
import { live } from "../rack/live.svelte";
import { wrongOf, type Wrong } from "./refusal";

export class Action {
  busy = $state(false);
  wrong = $state.raw<Wrong | null>(null);

  constructor(private readonly fields: readonly string[] = []) {}

  /** The answer, or undefined when it was refused; then `wrong` says why. A second press while busy does nothing. */
  async run<T>(act: () => Promise<T>): Promise<T | undefined> {
    if (this.busy) return undefined;
    this.busy = true;
    this.wrong = null;
    try {
      return await act();
    } catch (error) {
      this.wrong = wrongOf(error, this.fields);
      if (error instanceof Refused && error.refusal.why === "not_logged_in") live.expired();
      return undefined;
    } finally {
      this.busy = false;
    }
  }

  /** What is wrong with this field. */
  at(field: string): string | null {
    return this.wrong?.field === field ? this.wrong.text : null;
  }
}
