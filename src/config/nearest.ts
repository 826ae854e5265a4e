/**
 * "Did you mean": the candidate nearest to a mistyped key.
 *
 * Pure; any thread; runs on errors only. Distance is Damerau-Levenshtein with adjacent
 * transpositions (`replcias` is one step from `replicas`), on inputs cut to a bounded length.
 */
const lengthMax = 64;
/** Letters at the start that must agree when the endings do not. */
const stemMin = 4;

/** The nearest candidate, or `undefined` when none is near enough to be what was meant. */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  const meant = normalise(word);
  let best: string | undefined;
  let bestDistance = Number.POSITIVE_INFINITY;
  for (const candidate of candidates) {
    const distance = editDistance(meant, normalise(candidate));
    // A third of the letters may be wrong; more would name a key that is merely short.
    const limit = Math.max(1, Math.floor(Math.max(meant.length, candidate.length) / 3));
    if (distance > limit || distance >= bestDistance) continue;
    best = candidate;
    bestDistance = distance;
  }
  return best ?? sharedStart(meant, candidates);
}

/** The one candidate that begins the word or that the word begins: `retries` shares `retr` with it. */
function sharedStart(word: string, candidates: readonly string[]): string | undefined {
  const alike = candidates.filter((candidate) => {
    const name = normalise(candidate);
    const stem = Math.min(word.length, name.length) - 1;
    return stem >= stemMin && word.slice(0, stem) === name.slice(0, stem);
  });
  return alike.length === 1 ? alike[0] : undefined;
}

/** Insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b`. */
export function editDistance(a: string, b: string): number {
  const width = b.length + 1;
  const cost = new Uint16Array((a.length + 1) * width);
  const at = (i: number, j: number): number => cost[i * width + j] ?? 0;
  for (let i = 0; i <= a.length; i++) cost[i * width] = i;
  for (let j = 0; j <= b.length; j++) cost[j] = j;
  for (let i = 1; i <= a.length; i++) {
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let least = Math.min(at(i - 1, j) + 1, at(i, j - 1) + 1, at(i - 1, j - 1) + (same ? 0 : 1));
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      if (swapped) least = Math.min(least, at(i - 2, j - 2) + 1);
      cost[i * width + j] = least;
    }
  }
  return at(a.length, b.length);
}

/** maxBody, max-body and MAX_BODY all mean max_body. */
function normalise(word: string): string {
  return word
    .slice(0, lengthMax)
    .replace(/([a-z0-9])([A-Z])/g, '$1_$2')
    .replaceAll('-', '_')
    .toLowerCase();
}
