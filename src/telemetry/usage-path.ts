/** How usage files are named. Pure. */

/** Where the number of an acceptor goes, and what stands before and behind it. */
function partsOf(path: string): readonly [stem: string, ending: string] {
  const dot = path.lastIndexOf('.');
  return dot > path.lastIndexOf('/') + 1 ? [path.slice(0, dot), path.slice(dot)] : [path, ''];
}

/** `usage.ndjson` of acceptor 1 of several is `usage.1.ndjson`. */
export function usagePathOf(path: string, acceptor: number, acceptors: number): string {
  if (acceptors === 1) return path;
  const [stem, ending] = partsOf(path);
  return `${stem}.${acceptor}${ending}`;
}

/**
 * Names, of those in its folder, of files that an acceptor has written for `path`, whatever number of them
 * there was, without the numbers of renamed ones. `path` has an ending that is no number.
 */
export function usageFilesAmong(names: readonly string[], path: string): string[] {
  const [stem, ending] = partsOf(path.slice(path.lastIndexOf('/') + 1));
  const pattern = new RegExp(`^(${escaped(stem)}(?:\\.\\d{1,3})?${escaped(ending)})(?:\\.\\d+)?$`);
  const found = names.flatMap((name) => pattern.exec(name)?.[1] ?? []);
  return [...new Set(found)].sort();
}

const escaped = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
