// A refusal's place on a form, and its sentence. The server's own sentence is used wherever it says enough.

import { Refused } from "../api/client";
import type { Rejected } from "../api/schema";
import { sentence } from "./format";

/** What went wrong with one request, ready to be shown. */
export interface Wrong {
  /** The form's field it concerns; null: the whole. */
  field: string | null;
  text: string;
  /** Where no host can take a VM: each host with the reason. */
  rejected: readonly Rejected[];
}

/** `fields`: those that the form has; a refusal about any other concerns the whole form. */
export function wrongOf(error: unknown, fields: readonly string[] = []): Wrong {
  const whole = { field: null, rejected: [] };
  if (!(error instanceof Refused))
    return { ...whole, text: sentence(error instanceof Error ? error.message : String(error)) };
  const { refusal, message } = error;
  const at = (field: string, text: string): Wrong =>
    fields.includes(field)
      ? { ...whole, field, text: sentence(text) }
      : { ...whole, text: sentence(message) };
  switch (refusal.why) {
    case "name_taken":
      return at("name", `the name ${refusal.name} is taken`);
    case "mac_taken":
      return at("mac", `the address ${refusal.mac} is another machine's or VM's`);
    case "no_template":
      return at("template", message);
    case "wrong_password":
      return at(fields.includes("code") ? "code" : "password", message);
    case "bad_value":
      return at(refusal.field, `expected ${refusal.expected}, got “${refusal.given}”`);
    case "no_place":
      return { ...whole, text: `No host can take ${refusal.vm}.`, rejected: refusal.rejected };
    default:
      return { ...whole, text: sentence(message) };
  }
}
