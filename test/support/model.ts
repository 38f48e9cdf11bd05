/**
 * What the rows must be after any sequence of reports, connects, disconnects and restarts: the rules of the wire in the
 * plainest way, with lists and loops. It shares no code with what it judges, and is slow on purpose.
 */
import type { RequestFields, TunnelFields } from './wire.ts';

/** A row that has to be there, and says this. */
export interface ModelRow {
  readonly cluster: string;
  readonly id: string;
  readonly name: string;
  readonly tenantID: string;
  readonly clusterID: string;
  readonly nodeID: string;
  /** Undefined: left out. */
  readonly createdAt: string | undefined;
  /** Another number than before: the tunnel was gone for a moment, or is another one, so the row may be another one. */
  readonly life: number;
}

/** A stream as the model knows it; made by `open`. */
export interface ModelStream {
  reporter: { readonly cluster: string; readonly id: string } | undefined;
  open: boolean;
}

/** What has to come back for a report. */
export type Answer =
  | { readonly kind: 'ack'; readonly nonce: string }
  /** Refused because of `field`; the stream ends after it. */
  | { readonly kind: 'nack'; readonly nonce: string; readonly field: string }
  /** The stream had ended before, or ends by this report as a newer one is served. */
  | { readonly kind: 'nothing' };

/** Greatest lengths in characters, as the objects' pages in docs/spec have them; the wire has 128 for an identity. */
const MOST_OF_A_NAME = 512;
const MOST_OF_AN_IDENTITY = 128;
const MOST_OF_A_REPORTER = 256;

/** What the operator is to do, as plainly as it can be written: lists, and no thought for speed. */
export class Model {
  /** What the rows must be, in the order in which they came. */
  rows: readonly ModelRow[] = [];
  readonly #onInvalid: 'skip' | 'nack';
  #streams: ModelStream[] = [];
  #lives = 0;
  /** Since the operator's start: which reporters have said everything, and which names each has spoken of. */
  #complete: string[] = [];
  #spoken: string[] = [];
  #listed = true;

  constructor(onInvalid: 'skip' | 'nack') {
    this.#onInvalid = onInvalid;
  }

  open(): ModelStream {
    const stream: ModelStream = { reporter: undefined, open: true };
    this.#streams.push(stream);
    return stream;
  }

  /** The stream ends, by whomever; what it reported stays. */
  end(stream: ModelStream): void {
    stream.open = false;
  }

  /**
   * The operator is started anew: every stream ends, and what is known of every reporter are its rows.
   * @param found the rows that are there, where the end was a sudden one; else everything was written before it
   */
  restart(found?: readonly Omit<ModelRow, 'life'>[]): void {
    for (const stream of this.#streams) stream.open = false;
    this.#streams = [];
    this.#complete = [];
    this.#spoken = [];
    this.#listed = false;
    this.rows = found?.map((row) => ({ ...row, life: this.#nextLife() })) ?? this.rows;
  }

  /** How many reporters have a stream that is served. */
  get connectedReporters(): number {
    return this.#served().length;
  }

  /** The operator has listed the rows that were there when it started. */
  list(): void {
    this.#listed = true;
  }

  /** A report is read on a stream. */
  report(stream: ModelStream, report: RequestFields): Answer {
    const nonce = String(report.nonce ?? 0);
    if (!stream.open) return { kind: 'nothing' };
    const field =
      this.#identify(stream, report) ??
      (nonce.startsWith('-') ? 'nonce' : undefined) ??
      this.#refused(report);
    if (field !== undefined) {
      stream.open = false;
      return { kind: 'nack', nonce, field };
    }
    if (!this.#newest(stream)) return { kind: 'nothing' };
    const { cluster, id } = stream.reporter ?? { cluster: '', id: '' };
    if (report.full_push === true) this.#everything(cluster, id, report);
    else this.#changes(cluster, id, report);
    return { kind: 'ack', nonce };
  }

  /** Lives of all tunnels of a reporter begin anew: it cannot be told what was read of it in between. */
  renewLives(cluster: string, id: string): void {
    this.rows = this.rows.map((row) =>
      row.cluster === cluster && row.id === id ? { ...row, life: this.#nextLife() } : row,
    );
  }

  /** Of a reporter's streams that have said whose they are only the one that was opened last goes on. Is it this? */
  #newest(stream: ModelStream): boolean {
    const { id, cluster } = stream.reporter ?? {};
    const rivals = this.#served().filter(
      ({ reporter }) => reporter?.id === id && reporter?.cluster === cluster,
    );
    const newest = rivals.at(-1);
    for (const rival of rivals) rival.open = rival === newest;
    return stream === newest;
  }

  /** Open streams that have said whose they are, in the order they were opened. */
  #served(): ModelStream[] {
    return this.#streams.filter(({ open, reporter }) => open && reporter !== undefined);
  }

  /** Whose stream it is: told by its first report, the same ever after. */
  #identify(stream: ModelStream, { node }: RequestFields): string | undefined {
    if (node === undefined) return stream.reporter === undefined ? 'node' : undefined;
    const { id = '', cluster = '' } = node;
    if (stream.reporter !== undefined) {
      if (stream.reporter.id !== id) return 'node.id';
      return stream.reporter.cluster === cluster ? undefined : 'node.cluster';
    }
    if (id === '' || unfit(id, MOST_OF_A_REPORTER)) return 'node.id';
    if (unfit(cluster, MOST_OF_A_REPORTER)) return 'node.cluster';
    stream.reporter = { cluster, id };
    return undefined;
  }

  /** The first part that breaks a rule, where one is enough to refuse the report. */
  #refused(report: RequestFields): string | undefined {
    return this.#onInvalid === 'nack' ? problems(report)[0] : undefined;
  }

  /** A full push is authoritative: what it lists is held, whatever else it says, and nothing besides. */
  #everything(cluster: string, id: string, report: RequestFields): void {
    const before = this.rows.filter((row) => row.cluster === cluster && row.id === id);
    this.rows = this.rows.filter((row) => !(row.cluster === cluster && row.id === id));
    for (const tunnel of rightful(report)) {
      this.#hold(
        cluster,
        id,
        tunnel,
        before.find((row) => row.name === tunnel.name),
      );
    }
    this.#complete.push(JSON.stringify([cluster, id]));
  }

  /** Per name: held after = held before + adds - removals, at least 0 and at most 1. */
  #changes(cluster: string, id: string, report: RequestFields): void {
    const added = rightful(report);
    const removed = (report.removed_tunnel_names ?? []).filter((name) => !nameProblem(name));
    const names: string[] = [];
    for (const name of [...added.map((tunnel) => tunnel.name), ...removed]) {
      if (!names.includes(name)) names.push(name);
    }
    for (const name of names) {
      const adds = added.filter((tunnel) => tunnel.name === name);
      const removals = removed.filter((each) => each === name);
      const before = this.rows.find((row) => row.cluster === cluster && row.id === id && row.name === name);
      if (adds.length === removals.length && this.#cannotTell(cluster, id, name)) continue;
      this.#spoken.push(JSON.stringify([cluster, id, name]));
      const after = Math.min(1, Math.max(0, (before === undefined ? 0 : 1) + adds.length - removals.length));
      const last = adds.at(-1);
      if (after === 0) this.rows = this.rows.filter((row) => row !== before);
      else if (last !== undefined) this.#hold(cluster, id, last, before);
    }
  }

  /**
   * Before the rows are listed, a name that comes as often as it goes may have dropped and come back, or come and gone:
   * what is there stays, until the reporter has spoken of it plainly.
   */
  #cannotTell(cluster: string, id: string, name: string): boolean {
    return (
      !this.#listed &&
      !this.#complete.includes(JSON.stringify([cluster, id])) &&
      !this.#spoken.includes(JSON.stringify([cluster, id, name]))
    );
  }

  /** The tunnel is held from now on, or still; its last entry tells what it is. */
  #hold(cluster: string, id: string, tunnel: Rightful, before: ModelRow | undefined): void {
    const same =
      before?.tenantID === tunnel.tenantID &&
      before.clusterID === tunnel.clusterID &&
      before.nodeID === tunnel.nodeID;
    const row = { cluster, id, ...tunnel, life: same ? before.life : this.#nextLife() };
    this.rows = [
      ...this.rows.filter((each) => !(each.cluster === cluster && each.id === id && each.name === row.name)),
      row,
    ];
  }

  #nextLife(): number {
    this.#lives += 1;
    return this.#lives;
  }
}

interface Rightful {
  readonly name: string;
  readonly tenantID: string;
  readonly clusterID: string;
  readonly nodeID: string;
  readonly createdAt: string | undefined;
}

/** The field paths of all that breaks a rule in a report's lists, in the order of the wire. */
export function problems({
  added_tunnels: added = [],
  removed_tunnel_names: removed = [],
}: RequestFields): string[] {
  const found: string[] = [];
  for (const [index, tunnel] of added.entries()) {
    const part = tunnelProblem(tunnel);
    if (part !== undefined) found.push(`added_tunnels[${index}].${part}`);
  }
  for (const [index, name] of removed.entries()) {
    if (nameProblem(name)) found.push(`removed_tunnel_names[${index}]`);
  }
  return found;
}

/** What is wrong with a tunnel, as the path of the field within it; undefined when it is rightful. */
function tunnelProblem({ name = '', identity }: TunnelFields): string | undefined {
  if (nameProblem(name)) return 'name';
  if (identity === undefined) return 'identity';
  const { tenant_id: tenant = '', cluster_id: cluster = '', node_id: node = '' } = identity;
  if (tenant === '' || unfit(tenant, MOST_OF_AN_IDENTITY)) return 'identity.tenant_id';
  if (cluster === '' || unfit(unscoped(tenant, cluster), MOST_OF_AN_IDENTITY)) return 'identity.cluster_id';
  if (node === '' || unfit(unscoped(tenant, node), MOST_OF_AN_IDENTITY)) return 'identity.node_id';
  return undefined;
}

/** True for a name that no tunnel may have; one that is removed is held to the same. */
function nameProblem(name: string): boolean {
  return name === '' || unfit(name, MOST_OF_A_NAME);
}

/** The tunnels of a report that break no rule. */
function rightful({ added_tunnels: added = [] }: RequestFields): Rightful[] {
  const tunnels: Rightful[] = [];
  for (const tunnel of added) {
    if (tunnelProblem(tunnel) !== undefined) continue;
    tunnels.push({
      name: tunnel.name ?? '',
      tenantID: tunnel.identity?.tenant_id ?? '',
      clusterID: tunnel.identity?.cluster_id ?? '',
      nodeID: tunnel.identity?.node_id ?? '',
      createdAt: createdAtOf(tunnel),
    });
  }
  return tunnels;
}

/** Under tenant isolation ids come as `tenant:id`; the limit is for the id. */
function unscoped(tenant: string, id: string): string {
  return id.startsWith(`${tenant}:`) && id !== `${tenant}:` ? id.slice(tenant.length + 1) : id;
}

/** Too long, or with a character that must not be shown: a control character, a line break, a change of direction. */
function unfit(text: string, most: number): boolean {
  const points = Array.from(text, (character) => character.codePointAt(0) ?? 0);
  return (
    points.length > most ||
    points.some(
      (point) =>
        point < 0x20 ||
        (point >= 0x7f && point <= 0x9f) ||
        (point >= 0x2028 && point <= 0x202e) ||
        (point >= 0x2066 && point <= 0x2069),
    )
  );
}

/** One text an instant, in UTC, of the years 1 to 9999, with as many digits as it needs in threes; else left out. */
function createdAtOf({ created_at: createdAt }: TunnelFields): string | undefined {
  if (createdAt === undefined) return undefined;
  const seconds = Number(createdAt.seconds ?? 0);
  const nanos = createdAt.nanos ?? 0;
  const date = new Date(seconds * 1000);
  if (nanos < 0 || nanos >= 1e9 || Number.isNaN(date.getTime())) return undefined;
  if (date.getUTCFullYear() < 1 || date.getUTCFullYear() > 9999) return undefined;
  const [day, time] = date
    .toISOString()
    .replace(/\.000Z$/, '')
    .split('T');
  const digits = String(nanos)
    .padStart(9, '0')
    .replace(/(000){1,3}$/, '');
  return `${day}T${time}${digits === '' ? '' : `.${digits}`}Z`;
}
