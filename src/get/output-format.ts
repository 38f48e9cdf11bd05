import { humanDuration } from '../cli/human-duration.ts';
import { yamlText } from '../cli/yaml-text.ts';
import { findCondition } from '../core/kubernetes.ts';
import type { ListedTunnel } from './listed-tunnel.ts';

/** The values of `--output`. Empty: a table. */
export const OUTPUTS = ['', 'wide', 'name', 'json', 'yaml'] as const;
export type Output = (typeof OUTPUTS)[number];

/** What `kubectl get` calls the type of a change. */
export type ChangeType = 'ADDED' | 'MODIFIED' | 'DELETED';

/** How tunnels are printed. */
export interface OutputOptions {
  readonly output: Output;
  /** Whether a table begins with a header. */
  readonly hasHeader: boolean;
  /** Whether a table shows the namespace. */
  readonly hasNamespace: boolean;
  /** Whether changes follow the list. */
  readonly isWatch: boolean;
  /** Whether a change is printed with its type. */
  readonly hasEvents: boolean;
}

/**
 * Prints tunnels in one format. A tunnel is kept as one text until it is printed, because there may be 1,000,000: the
 * text is a tenth of the object's size, and a table needs the widths of all lines before it prints the first one.
 */
export interface OutputFormat {
  /** Returns the text that `print` and `printChange` need. */
  readonly encode: (tunnel: ListedTunnel) => string;
  /** Returns true if both texts, which are of the same tunnel, differ at most in when it was created in the API. */
  isSame(a: string, b: string): boolean;
  /** Prints a list; in a watch, one document per tunnel. */
  print(texts: readonly string[], nowMs: number, out: (text: string) => void): void;
  /** Prints a tunnel that was requested by its name: a document that is not a list. */
  printSingle(text: string, nowMs: number, out: (text: string) => void): void;
  /** Prints one line or document of a watch. `type` is shown only if the options demand it. */
  printChange(type: ChangeType, text: string, nowMs: number, out: (text: string) => void): void;
}

/** Returns the format of an output. */
export function outputFormat(options: OutputOptions): OutputFormat {
  switch (options.output) {
    case '':
    case 'wide':
      return tableFormat(options);
    case 'name':
      return nameFormat();
    case 'json':
    case 'yaml':
      return documentFormat(options.output, options);
  }
}

/** Output is written in blocks of at least this many characters. */
const BLOCK_LENGTH = 64 * 1024;

/** Combines small texts to blocks. */
function blockWriter(out: (text: string) => void): { add: (text: string) => void; end: () => void } {
  let block: string[] = [];
  let length = 0;
  function flush(): void {
    if (length > 0) out(block.join(''));
    block = [];
    length = 0;
  }
  return {
    add(text) {
      block.push(text);
      length += text.length;
      if (length >= BLOCK_LENGTH) flush();
    },
    end: flush,
  };
}

/** Occurs in no cell, because control characters are rejected in every value that is displayed. */
const SEPARATOR = '\0';
/** As in kubectl's table: the width of a column includes the gap, and is at least 6. */
const GAP = 3;
const MIN_WIDTH = 6;

/** Prints the columns of `crds/reversetunnels.yaml` as kubectl does. */
function tableFormat({ output, hasHeader, hasNamespace, hasEvents }: OutputOptions): OutputFormat {
  const isWide = output === 'wide';
  const header = [
    ...(hasNamespace ? ['NAMESPACE'] : []),
    'NAME',
    'TENANT',
    'CLUSTER',
    'NODE',
    'REPORTER',
    'STATE',
    'UP',
    'AGE',
    ...(isWide ? ['TUNNEL', 'REASON'] : []),
  ];
  // Times are the last two parts of a text, because the cells change while the tunnel does not.
  const firstTime = header.indexOf('UP');
  const typeColumn = hasEvents ? ['EVENT'] : [];
  const typeWidths = hasEvents ? ['MODIFIED'] : [];
  // A watch prints lines before it knows the next ones, so widths only grow.
  let widths = header.map(() => 0);
  let headerPrinted = !hasHeader;

  function cellsOf(text: string, nowMs: number): string[] {
    const parts = text.split(SEPARATOR);
    const created = parts.pop() ?? '';
    const up = parts.pop() ?? '';
    parts.splice(firstTime, 0, formatUp(up, nowMs), formatTime(created, nowMs, '<unknown>'));
    return parts;
  }

  function measure(cells: readonly string[]): void {
    for (const [column, cell] of cells.entries())
      widths[column] = Math.max(widths[column] ?? 0, displayWidth(cell));
  }

  function line(type: readonly string[], cells: readonly string[]): string {
    const padded = cells.map((cell, column) =>
      column === cells.length - 1 ? cell : pad(cell, widths[column] ?? 0),
    );
    return `${type.map((cell) => pad(cell, displayWidth(typeWidths[0] ?? ''))).join('')}${padded.join('')}\n`;
  }

  function printHeader(add: (text: string) => void): void {
    if (headerPrinted) return;
    headerPrinted = true;
    add(line(typeColumn, header));
  }

  function print(texts: readonly string[], nowMs: number, out: (text: string) => void): void {
    if (texts.length === 0) return;
    const writer = blockWriter(out);
    if (!headerPrinted) measure(header);
    for (const text of texts) measure(cellsOf(text, nowMs));
    printHeader(writer.add);
    for (const text of texts) writer.add(line(hasEvents ? ['ADDED'] : [], cellsOf(text, nowMs)));
    writer.end();
  }

  return {
    encode({ metadata, spec, status }) {
      const state = status?.state ?? '';
      const reason = findCondition(status?.conditions, 'Ready')?.reason ?? '';
      return [
        ...(hasNamespace ? [metadata.namespace ?? ''] : []),
        metadata.name,
        spec.tenantID,
        spec.clusterID,
        spec.nodeID,
        spec.reporter.id,
        state,
        ...(isWide ? [spec.tunnelName, reason] : []),
        spec.createdAt ?? '',
        metadata.creationTimestamp ?? '',
      ].join(SEPARATOR);
    },
    isSame: (a, b) => a.slice(0, a.lastIndexOf(SEPARATOR)) === b.slice(0, b.lastIndexOf(SEPARATOR)),
    print,
    printSingle: (text, nowMs, out) => print([text], nowMs, out),
    printChange(type, text, nowMs, out) {
      const cells = cellsOf(text, nowMs);
      if (!headerPrinted) measure(header);
      measure(cells);
      printHeader(out);
      out(line(hasEvents ? [type] : [], cells));
    },
  };
}

function pad(cell: string, width: number): string {
  return cell + ' '.repeat(Math.max(width + GAP, MIN_WIDTH) - displayWidth(cell));
}

/** Counts code points, as kubectl does. */
function displayWidth(text: string): number {
  // Most cells are ASCII, for which the length is the count.
  return /[\ud800-\udbff]/.test(text) ? Array.from(text).length : text.length;
}

/** Formats a creation time by the clock of the initiator; blank if it is in the future. */
function formatUp(createdAt: string, nowMs: number): string {
  return Date.parse(createdAt) > nowMs ? '' : formatTime(createdAt, nowMs, '');
}

function formatTime(text: string, nowMs: number, missing: string): string {
  if (text === '') return missing;
  const atMs = Date.parse(text);
  return Number.isNaN(atMs) ? '<invalid>' : humanDuration(nowMs - atMs);
}

function nameFormat(): OutputFormat {
  return {
    encode: ({ metadata }) => `reversetunnel.reverse-tunnel.io/${metadata.name}`,
    isSame: (a, b) => a === b,
    print(texts, _nowMs, out) {
      const writer = blockWriter(out);
      for (const text of texts) writer.add(`${text}\n`);
      writer.end();
    },
    printSingle: (text, _nowMs, out) => out(`${text}\n`),
    printChange: (_type, text, _nowMs, out) => out(`${text}\n`),
  };
}

const JSON_INDENT = 4;

/** Prints a `List` as kubectl does, item by item; a watch prints one document per tunnel and per change. */
function documentFormat(
  output: 'json' | 'yaml',
  { isWatch, hasEvents }: Pick<OutputOptions, 'isWatch' | 'hasEvents'>,
): OutputFormat {
  const isJson = output === 'json';
  let hasPrinted = false;
  function documentOf(type: ChangeType, text: string): string {
    const object: unknown = JSON.parse(text);
    const content = hasEvents ? { type, object } : object;
    if (isJson) return `${JSON.stringify(content, undefined, JSON_INDENT)}\n`;
    const separator = hasPrinted ? '---\n' : '';
    hasPrinted = true;
    return separator + yamlText(content);
  }
  return {
    encode: (tunnel) => JSON.stringify(tunnel),
    isSame: (a, b) => a === b,
    print(texts, _nowMs, out) {
      const writer = blockWriter(out);
      if (isWatch) for (const text of texts) writer.add(documentOf('ADDED', text));
      else if (isJson) printJsonList(texts, writer.add);
      else printYamlList(texts, writer.add);
      writer.end();
    },
    printSingle: (text, _nowMs, out) => out(documentOf('ADDED', text)),
    printChange: (type, text, _nowMs, out) => out(documentOf(type, text)),
  };
}

function printJsonList(texts: readonly string[], add: (text: string) => void): void {
  add(`{\n    "apiVersion": "v1",\n    "items": [`);
  for (const [index, text] of texts.entries()) {
    const item = JSON.stringify(JSON.parse(text), undefined, JSON_INDENT);
    add(`${index === 0 ? '' : ','}\n        ${item.replaceAll('\n', '\n        ')}`);
  }
  add(`${texts.length === 0 ? '' : '\n    '}],\n    "kind": "List",\n    "metadata": {\n`);
  add(`        "resourceVersion": ""\n    }\n}\n`);
}

function printYamlList(texts: readonly string[], add: (text: string) => void): void {
  add(`apiVersion: v1\nitems:${texts.length === 0 ? ' []' : ''}\n`);
  for (const text of texts) {
    const item = yamlText(JSON.parse(text)).trimEnd();
    add(`- ${item.replaceAll('\n', '\n  ')}\n`);
  }
  add('kind: List\nmetadata:\n  resourceVersion: ""\n');
}
