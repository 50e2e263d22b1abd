// What the address of the page says.

/** How a device connects. */
export type Choice = "auto" | "websocket" | "sse" | "longpoll";

export interface Identity {
  readonly user: string;
  readonly device: string;
}

export interface Settings {
  readonly devices: readonly { readonly side: "left" | "right"; readonly identity: Identity }[];
  /** Whether the tabs of this browser share one connection for each device. */
  readonly tabs: boolean;
  /** How long tokens live, in seconds. Undefined: as long as the gateway likes. */
  readonly life: number | undefined;
  readonly transport: Choice;
}

/** `alice/phone`. A user's name may have slashes in it; a device's may not, here. */
function identityOf(text: string | null, otherwise: Identity): Identity {
  const at = text?.lastIndexOf("/") ?? -1;
  if (!text || at < 1 || at === text.length - 1) return otherwise;
  return { user: text.slice(0, at), device: text.slice(at + 1) };
}

/** Reads the query of the page's address. What it does not say, or says wrongly, is as usual. */
export function settingsOf(query: URLSearchParams): Settings {
  const left = identityOf(query.get("left"), { user: "alice", device: "laptop" });
  const right = identityOf(query.get("right"), { user: "alice", device: "phone" });
  const life = Number(query.get("life"));
  const transport = query.get("transport");
  return {
    devices: [
      { side: "left", identity: left },
      ...(query.get("single") === "1" ? [] : [{ side: "right" as const, identity: right }]),
    ],
    tabs: query.get("tabs") === "1",
    life: life > 0 ? life : undefined,
    transport: transport === "websocket" || transport === "sse" || transport === "longpoll" ? transport : "auto",
  };
}
