// Elements in few words. Texts are set as text: what messages say is never read as markup.

type Props = Record<string, string | boolean | EventListener>;

/** Makes an element. Functions are listeners, `testid` is for tests, `true` and `false` are attributes that are there or not. */
export function h<K extends keyof HTMLElementTagNameMap>(name: K, props: Props = {}, ...children: (Node | string)[]): HTMLElementTagNameMap[K] {
  const e = document.createElement(name);
  for (const [key, value] of Object.entries(props)) {
    if (typeof value === "function") e.addEventListener(key, value);
    else if (typeof value === "boolean") e.toggleAttribute(key, value);
    else e.setAttribute(key === "testid" ? "data-testid" : key, value);
  }
  e.append(...children);
  return e;
}

/** Sets a text that differs: what has not changed is not announced again, and keeps its selection. */
export function say(e: Element, text: string): void {
  if (e.textContent !== text) e.textContent = text;
}

/** The time of day, as logs have it. */
export const timeOf = (d: Date): string => d.toLocaleTimeString([], { hourCycle: "h23", hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** A button that is one of several, of which one is chosen: a radio button that looks like a segment. */
export function segments<T extends string>(
  { legend, name, testid, chosen }: { legend: string; name: string; testid: string; chosen: T },
  all: readonly (readonly [T, string])[],
  choose: (value: T) => void,
): HTMLFieldSetElement {
  return h(
    "fieldset",
    { class: "segments" },
    h("legend", {}, legend),
    h(
      "div",
      { class: "row" },
      ...all.map(([value, text]) => {
        const input = h("input", { type: "radio", name, value, testid: `${testid}-${value}`, change: () => choose(value) });
        input.checked = value === chosen;
        return h("label", {}, input, h("span", {}, text));
      }),
    ),
  );
}

/** Tells people who do not see the page. What is said at a time is joined, as the last one would push out those before it. */
let news: string[] = [];
export function announce(text: string): void {
  news.push(text);
  if (news.length > 1) return;
  setTimeout(() => {
    say(document.getElementById("announcer")!, news.slice(-4).join(". "));
    news = [];
  }, 500);
}
