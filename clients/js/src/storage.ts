import type { Storage } from "./types.js";

/** Keeps in memory: for one run. The default where there is nothing better. */
export function memoryStorage(): Storage {
  const kept = new Map<string, string>();
  return {
    get: (key) => kept.get(key),
    set: (key, value) => void kept.set(key, value),
  };
}

/** Keeps in `localStorage`: across reloads, at once, for all tabs. The default in browsers. Keeps in memory where a page may not use it. */
export function localStorageStorage(): Storage {
  try {
    const { localStorage } = globalThis;
    // Node has one that only complains, and browsers refuse it to some pages.
    localStorage.getItem("");
    return { get: (key) => localStorage.getItem(key), set: (key, value) => localStorage.setItem(key, value) };
  } catch {
    return memoryStorage();
  }
}

/** Keeps in IndexedDB: in workers, too. The next message is handed out when the last one is written, which takes its time. */
export function indexedDBStorage(database = "carillon"): Storage {
  const store = "carillon";
  let opened: Promise<IDBDatabase> | undefined;
  const done = <T>(r: IDBRequest<T>): Promise<T> =>
    new Promise((resolve, reject) => {
      r.onsuccess = () => resolve(r.result);
      r.onerror = () => reject(r.error);
    });
  const open = (): Promise<IDBDatabase> =>
    (opened ??= (async () => {
      const r = indexedDB.open(database, 1);
      r.onupgradeneeded = () => r.result.createObjectStore(store);
      const db = await done(r);
      // The browser takes it away: it is opened anew.
      db.onclose = db.onversionchange = () => {
        opened = undefined;
        db.close();
      };
      return db;
    })().catch((e) => {
      opened = undefined;
      throw e;
    }));
  return {
    async get(key) {
      return (await done((await open()).transaction(store).objectStore(store).get(key))) as string | undefined;
    },
    async set(key, value) {
      const t = (await open()).transaction(store, "readwrite");
      t.objectStore(store).put(value, key);
      await new Promise<void>((resolve, reject) => {
        t.oncomplete = () => resolve();
        t.onabort = () => reject(t.error);
      });
    },
  };
}
