// A client between a clock that goes when it is told to and a transport whose other side is the test, and what the client said.
import { createClient, type ClientOptions } from "../../src/index.js";
import { memoryStorage } from "../../src/storage.js";
import type { CoreClient, Message } from "../../src/types.js";
import { cursor, FakeClock, FakeTransport, settled, tokenFor } from "./fake.js";

export interface World {
  clock: FakeClock;
  transport: FakeTransport;
  client: CoreClient<any>;
  states: string[];
  errors: string[];
  got: string[];
}

export function world(options: Partial<ClientOptions> = {}): World {
  const clock = new FakeClock();
  const transport = (options.transports?.[0] as FakeTransport | undefined) ?? new FakeTransport();
  const client = createClient<any>({
    endpoint: "https://push.example.com",
    getToken: () => tokenFor(),
    transports: [transport],
    storage: memoryStorage(),
    clock,
    random: () => 0.5,
    ...options,
  });
  const w: World = { clock, transport, client, states: [], errors: [], got: [] };
  client.on("state", ({ state }) => w.states.push(state));
  client.on("error", (e) => w.errors.push((e as { code?: string }).code!));
  return w;
}

/** A world whose client is connected, and notes what it gets. */
export async function connected(options: Partial<ClientOptions> = {}, handler?: (m: Message<any>) => unknown): Promise<World> {
  const w = world(options);
  w.client.on("message", (m) => {
    w.got.push(m.id);
    return handler?.(m);
  });
  void w.client.connect().catch(() => {});
  await settled();
  w.transport.last.welcome();
  w.transport.last.say({ type: "cursor", cursor: cursor(10, 5), reason: "caught_up" });
  return w;
}
