/**
 * The few commands of the demo on a machine without kubectl: `get` with selectors and output formats, `delete` and
 * `wait`. Tables are those of the API server; only their layout is that of kubectl.
 */
import { parseArgs } from 'node:util';
import { setTimeout as delay } from 'node:timers/promises';
import type { EmbeddedApiServer } from '../embedded-api-server/start.ts';
import { DemoError } from './errors.ts';

/** A table of the API server. */
interface Table {
  readonly columnDefinitions: readonly { readonly name: string; readonly priority: number }[];
  readonly rows: readonly { readonly cells: readonly unknown[]; readonly object: NamedObject }[];
}

interface NamedObject {
  readonly metadata: { readonly name: string };
  readonly status?: { readonly conditions?: readonly { readonly type: string; readonly status: string }[] };
}

/** Resources of the demo, by the names that kubectl accepts. */
const PLURALS: Readonly<Record<string, string>> = {
  rt: 'reversetunnels',
  reversetunnels: 'reversetunnels',
  rtr: 'reversetunnelreporters',
  reversetunnelreporters: 'reversetunnelreporters',
};
const GROUP = 'reverse-tunnel.io';
const TABLE = 'application/json;as=Table;v=v1;g=meta.k8s.io';
const WAIT_DEADLINE_MS = 30_000;
const POLL_INTERVAL_MS = 200;
const COLUMN_GAP = 3;

/** Executes a command with the arguments of kubectl and returns what kubectl would print. */
export async function runTableCommand(
  server: Pick<EmbeddedApiServer, 'request'>,
  namespace: string,
  args: readonly string[],
): Promise<string> {
  const { positionals, values } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      selector: { type: 'string', short: 'l', default: '' },
      'field-selector': { type: 'string', default: '' },
      output: { type: 'string', short: 'o', default: '' },
      for: { type: 'string', default: '' },
      all: { type: 'boolean', default: false },
    },
  });
  const [verb, resource = '', name] = positionals;
  const plural = PLURALS[resource];
  if (plural === undefined) throw new DemoError(`kubectl ${args.join(' ')}: not available without kubectl`);
  const collection = `/apis/${GROUP}/v1alpha1/namespaces/${namespace}/${plural}`;
  const query = new URLSearchParams({
    labelSelector: values.selector,
    fieldSelector: values['field-selector'],
    includeObject: 'Object',
  });

  async function send(method: string, path: string, accept?: string): Promise<unknown> {
    const { status, body } = await server.request(method, path, undefined, accept);
    if (status >= 300) throw new DemoError(`kubectl ${args.join(' ')}: ${JSON.stringify(body)}`);
    return body;
  }

  const list = async (): Promise<Table> =>
    (await send('GET', `${collection}?${query.toString()}`, TABLE)) as Table;

  async function waitForCondition(condition: string): Promise<string> {
    const untilMs = performance.now() + WAIT_DEADLINE_MS;
    for (;;) {
      const { rows } = await list();
      const met = rows.filter(({ object }) => hasCondition(object, condition));
      if (met.length === rows.length) {
        return met
          .map(({ object }) => `reversetunnel.${GROUP}/${object.metadata.name} condition met\n`)
          .join('');
      }
      if (performance.now() > untilMs) throw new DemoError(`kubectl ${args.join(' ')}: timed out`);
      await delay(POLL_INTERVAL_MS);
    }
  }

  switch (verb) {
    case 'get': {
      const table = await list();
      return values.output === 'name'
        ? table.rows.map(({ object }) => `reversetunnel.${GROUP}/${object.metadata.name}\n`).join('')
        : formatTable(table, values.output === 'wide');
    }
    case 'delete':
      await send('DELETE', `${collection}/${name ?? ''}`);
      return `reversetunnel.${GROUP} "${name ?? ''}" deleted from ${namespace} namespace\n`;
    case 'wait':
      return await waitForCondition(values.for.replace('condition=', ''));
    default:
      throw new DemoError(`kubectl ${args.join(' ')}: not available without kubectl`);
  }
}

function hasCondition({ status }: NamedObject, condition: string): boolean {
  return status?.conditions?.some(({ type, status: is }) => type === condition && is === 'True') ?? false;
}

/** Formats a table like kubectl: upper-case headers, columns of equal width; empty without any object. */
export function formatTable({ columnDefinitions, rows }: Table, wide: boolean): string {
  if (rows.length === 0) return '';
  const shown = columnDefinitions.flatMap(({ priority }, index) => (priority === 0 || wide ? [index] : []));
  const lines = [
    shown.map((index) => (columnDefinitions[index]?.name ?? '').toUpperCase()),
    ...rows.map(({ cells }) => shown.map((index) => formatCell(cells[index]))),
  ];
  const widths = shown.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)));
  return lines
    .map((line) =>
      line
        .map((cell, column) => cell.padEnd((widths[column] ?? 0) + COLUMN_GAP))
        .join('')
        .trimEnd(),
    )
    .map((line) => `${line}\n`)
    .join('');
}

function formatCell(cell: unknown): string {
  if (cell === null || cell === undefined) return '<none>';
  return typeof cell === 'string' ? cell : JSON.stringify(cell);
}
