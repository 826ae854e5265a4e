/** A table as text: columns as wide as their widest cell, two spaces between. Pure. */

/** `isNumber`: whether the cells of a column end at its right edge. */
export function tableLines(
  table: readonly (readonly string[])[],
  isNumber: (column: number) => boolean = () => false,
): string[] {
  const widths = (table[0] ?? []).map((_, column) =>
    Math.max(...table.map((row) => row[column]?.length ?? 0)),
  );
  return table.map((row) =>
    row
      .map((cell, column) => {
        const width = widths[column] ?? 0;
        return isNumber(column) ? cell.padStart(width) : cell.padEnd(width);
      })
      .join('  ')
      .trimEnd(),
  );
}

/** The same as one text that ends with its last line. */
export const textTable = (...args: Parameters<typeof tableLines>): string =>
  `${tableLines(...args).join('\n')}\n`;
