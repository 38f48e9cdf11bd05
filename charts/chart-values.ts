/** One value of the chart, as its README lists it. */
export interface ChartValue {
  /** As `--set` takes it. */
  readonly path: string;
  readonly defaultValue: unknown;
  /** In Markdown. */
  readonly description: string;
}

/**
 * The values that values.yaml explains, in its order. A value is explained by the comment `# -- …` above it, or by the
 * explanations of all that is in it.
 *
 * @param text of values.yaml, two spaces a level
 * @param values what it holds
 * @throws Error naming a value without an explanation
 */
export function chartValues(text: string, values: unknown): ChartValue[] {
  const entries: ChartValue[] = [];
  const parents: string[] = [];
  let description: string | undefined;
  /** Deeper lines than this belong to a value that is explained as a whole. */
  let wholeDepth = Number.POSITIVE_INFINITY;
  for (const line of text.split('\n')) {
    const comment = /^\s*# -- (.*)$/.exec(line)?.[1];
    if (comment !== undefined) {
      description = comment;
      continue;
    }
    const [, indent, key, inlineValue] = /^( *)([A-Za-z]\w*):(.*)$/.exec(line) ?? [];
    if (indent === undefined || key === undefined) continue;
    const depth = indent.length / 2;
    if (depth > wholeDepth) continue;
    wholeDepth = Number.POSITIVE_INFINITY;
    parents.splice(depth, Infinity, key);
    const path = parents.join('.');
    if (description !== undefined) {
      entries.push({ path, defaultValue: valueAt(values, parents), description: description });
      wholeDepth = depth;
    } else if (inlineValue?.trim() !== '') {
      throw new Error(`values.yaml: ${path} has no line "# -- …" that explains it`);
    }
    description = undefined;
  }
  return entries;
}

function valueAt(values: unknown, path: readonly string[]): unknown {
  let value = values;
  for (const key of path) value = (value as Readonly<Record<string, unknown>>)[key];
  return value;
}
