// Builds the gateway once, before any worker begins: two that build at once would take the file from under each other.

import { binary } from "./server.js";

export default function setup(): void {
  process.env["CARILLON_BINARY"] = binary();
}
