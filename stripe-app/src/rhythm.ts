/** How often something is paid: what a choice is known by, and how it reads. */

/** So many intervals from one payment to the next; one of them where no number is given. */
export interface Rhythm {
  interval: string;
  interval_count?: number;
}

/** What a choice is known by: `month`, `3-month`. */
export function rhythmKey({ interval, interval_count = 1 }: Rhythm): string {
  return interval_count === 1 ? interval : `${interval_count}-${interval}`;
}

/** What is known by a key of `rhythmKey`. */
export function rhythmOf(key: string): Required<Rhythm> {
  const [interval = "", count = "1"] = key.split("-").reverse();
  return { interval, interval_count: Number(count) };
}

/** “every month”, “every 3 months”. */
export function everyWords({ interval, interval_count = 1 }: Rhythm): string {
  return interval_count === 1 ? `every ${interval}` : `every ${interval_count} ${interval}s`;
}

/** “Monthly”, “Yearly”, “Every week”, “Every 3 months”. */
export function rhythmName(rhythm: Rhythm): string {
  const key = rhythmKey(rhythm);
  if (key === "month") return "Monthly";
  if (key === "year") return "Yearly";
  return everyWords(rhythm).replace("every", "Every");
}
