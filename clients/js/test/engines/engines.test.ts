// Browsers that are no Chromium: how their Web Locks, channels, storages and sockets behave only they can say.
import { describe } from "vitest";
import { Engine, engines } from "../kit/engines.js";
import { promisesToPages, promisesToTabs, type Start } from "../kit/suites.js";

describe.each(engines)("in %s", (name) => {
  const start: Start = (gateway, claims) => Engine.forTest(name, gateway, claims);
  // Firefox keeps no page that was driven.
  promisesToPages(start, { keeps: name === "webkit" });
  promisesToTabs(start);
});
