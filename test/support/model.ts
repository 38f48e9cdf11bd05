/**
 * What the rows must be after any sequence of reports, connects, disconnects and restarts: the rules of the wire in the
 * plainest way, with lists and loops. It shares no code with what it judges, and is slow on purpose.
 */
import type { RequestFields, TunnelFields } from './wire.ts';

/** A row that has to be there, and says this. */
export interface ModelObject {
  readonly cluster: string;
  readonly id: string;
  readonly name: string;
  readonly tenantID: string;
  readonly clusterID: string;
  readonly nodeID: string;
  /** Undefined: left out. */
  readonly createdAt: string | undefined;
  /** Another number than before: the tunnel was gone for a moment, or is another one, so the row may be another one. */
  readonly generation: number;
}

/** A stream as the model knows it; made by `open`. */
export interface ModelStream {
  reporter: { readonly cluster: string; readonly id: string } | undefined;
  open: boolean;
}

/** What has to come back for a report. */
export type ExpectedResponse =
  | { readonly kind: 'ack'; readonly nonce: string }
  /** Refused because of `field`; the stream ends after it. */
  | { readonly kind: 'nack'; readonly nonce: string; readonly field: string }
  /** The stream had ended before, or ends by this report as a newer one is served. */
  | { readonly kind: 'nothing' };

/** Greatest lengths in characters, as the objects' pages in docs/spec have them; the wire has 128 for an identity. */
const MAX_NAME_LENGTH = 512;
const MAX_IDENTITY_LENGTH = 128;
const MAX_REPORTER_LENGTH = 256;

/** What the operator is to do, as plainly as it can be written: lists, and no thought for speed. */
export class Model {
  /** What the rows must be, in the order in which they came. */
  objects: readonly ModelObject[] = [];
  readonly #onInvalid: 'skip' | 'nack';
  #streams: ModelStream[] = [];
  #generations = 0;
  /** Since the operator's start: which reporters have said everything, and which names each has spoken of. */
  #complete: string[] = [];
  #mentioned: string[] = [];
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
   * @param existing the rows that are there, where the end was a sudden one; else everything was written before it
   */
  restart(existing?: readonly Omit<ModelObject, 'generation'>[]): void {
    for (const stream of this.#streams) stream.open = false;
    this.#streams = [];
    this.#complete = [];
    this.#mentioned = [];
    this.#listed = false;
    this.objects =
      existing?.map((object) => ({ ...object, generation: this.#nextGeneration() })) ?? this.objects;
  }

  /** How many reporters have a stream that is served. */
  get connectedReporters(): number {
    return this.#served().length;
  }

  /** The operator has listed the rows that were there when it started. */
  markListed(): void {
    this.#listed = true;
  }

  /** A report is read on a stream. */
  report(stream: ModelStream, report: RequestFields): ExpectedResponse {
    const nonce = String(report.nonce ?? 0);
    if (!stream.open) return { kind: 'nothing' };
    const field =
      this.#identify(stream, report) ??
      (nonce.startsWith('-') ? 'nonce' : undefined) ??
      this.#firstViolation(report);
    if (field !== undefined) {
      stream.open = false;
      return { kind: 'nack', nonce, field };
    }
    if (!this.#newest(stream)) return { kind: 'nothing' };
    const { cluster, id } = stream.reporter ?? { cluster: '', id: '' };
    if (report.full_push === true) this.#applyFullPush(cluster, id, report);
    else this.#applyDelta(cluster, id, report);
    return { kind: 'ack', nonce };
  }

  /** Lives of all tunnels of a reporter begin anew: it cannot be told what was read of it in between. */
  renewGenerations(cluster: string, id: string): void {
    this.objects = this.objects.map((object) =>
      object.cluster === cluster && object.id === id
        ? { ...object, generation: this.#nextGeneration() }
        : object,
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
    if (id === '' || isInvalidText(id, MAX_REPORTER_LENGTH)) return 'node.id';
    if (isInvalidText(cluster, MAX_REPORTER_LENGTH)) return 'node.cluster';
    stream.reporter = { cluster, id };
    return undefined;
  }

  /** The first part that breaks a rule, where one is enough to refuse the report. */
  #firstViolation(report: RequestFields): string | undefined {
    return this.#onInvalid === 'nack' ? violations(report)[0] : undefined;
  }

  /** A full push is authoritative: what it lists is held, whatever else it says, and nothing besides. */
  #applyFullPush(cluster: string, id: string, report: RequestFields): void {
    const before = this.objects.filter((object) => object.cluster === cluster && object.id === id);
    this.objects = this.objects.filter((object) => !(object.cluster === cluster && object.id === id));
    for (const tunnel of validTunnels(report)) {
      this.#upsert(
        cluster,
        id,
        tunnel,
        before.find((object) => object.name === tunnel.name),
      );
    }
    this.#complete.push(JSON.stringify([cluster, id]));
  }

  /** Per name: held after = held before + adds - removals, at least 0 and at most 1. */
  #applyDelta(cluster: string, id: string, report: RequestFields): void {
    const added = validTunnels(report);
    const removed = (report.removed_tunnel_names ?? []).filter((name) => !isInvalidName(name));
    const names: string[] = [];
    for (const name of [...added.map((tunnel) => tunnel.name), ...removed]) {
      if (!names.includes(name)) names.push(name);
    }
    for (const name of names) {
      const adds = added.filter((tunnel) => tunnel.name === name);
      const removals = removed.filter((removedName) => removedName === name);
      const before = this.objects.find(
        (object) => object.cluster === cluster && object.id === id && object.name === name,
      );
      if (adds.length === removals.length && this.#isAmbiguous(cluster, id, name)) continue;
      this.#mentioned.push(JSON.stringify([cluster, id, name]));
      const after = Math.min(1, Math.max(0, (before === undefined ? 0 : 1) + adds.length - removals.length));
      const last = adds.at(-1);
      if (after === 0) this.objects = this.objects.filter((object) => object !== before);
      else if (last !== undefined) this.#upsert(cluster, id, last, before);
    }
  }

  /**
   * Before the rows are listed, a name that comes as often as it goes may have dropped and come back, or come and gone:
   * what is there stays, until the reporter has spoken of it plainly.
   */
  #isAmbiguous(cluster: string, id: string, name: string): boolean {
    return (
      !this.#listed &&
      !this.#complete.includes(JSON.stringify([cluster, id])) &&
      !this.#mentioned.includes(JSON.stringify([cluster, id, name]))
    );
  }

  /** The tunnel is held from now on, or still; its last entry tells what it is. */
  #upsert(cluster: string, id: string, tunnel: ValidTunnel, before: ModelObject | undefined): void {
    const same =
      before?.tenantID === tunnel.tenantID &&
      before.clusterID === tunnel.clusterID &&
      before.nodeID === tunnel.nodeID;
    const object = { cluster, id, ...tunnel, generation: same ? before.generation : this.#nextGeneration() };
    this.objects = [
      ...this.objects.filter(
        (existing) => !(existing.cluster === cluster && existing.id === id && existing.name === object.name),
      ),
      object,
    ];
  }

  #nextGeneration(): number {
    this.#generations += 1;
    return this.#generations;
  }
}

interface ValidTunnel {
  readonly name: string;
  readonly tenantID: string;
  readonly clusterID: string;
  readonly nodeID: string;
  readonly createdAt: string | undefined;
}

/** The field paths of all that breaks a rule in a report's lists, in the order of the wire. */
export function violations({
  added_tunnels: added = [],
  removed_tunnel_names: removed = [],
}: RequestFields): string[] {
  const paths: string[] = [];
  for (const [index, tunnel] of added.entries()) {
    const part = tunnelViolation(tunnel);
    if (part !== undefined) paths.push(`added_tunnels[${index}].${part}`);
  }
  for (const [index, name] of removed.entries()) {
    if (isInvalidName(name)) paths.push(`removed_tunnel_names[${index}]`);
  }
  return paths;
}

/** What is wrong with a tunnel, as the path of the field within it; undefined when it is rightful. */
function tunnelViolation({ name = '', identity }: TunnelFields): string | undefined {
  if (isInvalidName(name)) return 'name';
  if (identity === undefined) return 'identity';
  const { tenant_id: tenant = '', cluster_id: cluster = '', node_id: node = '' } = identity;
  if (tenant === '' || isInvalidText(tenant, MAX_IDENTITY_LENGTH)) return 'identity.tenant_id';
  if (cluster === '' || isInvalidText(stripTenantPrefix(tenant, cluster), MAX_IDENTITY_LENGTH))
    return 'identity.cluster_id';
  if (node === '' || isInvalidText(stripTenantPrefix(tenant, node), MAX_IDENTITY_LENGTH))
    return 'identity.node_id';
  return undefined;
}

/** True for a name that no tunnel may have; one that is removed is held to the same. */
function isInvalidName(name: string): boolean {
  return name === '' || isInvalidText(name, MAX_NAME_LENGTH);
}

/** The tunnels of a report that break no rule. */
function validTunnels({ added_tunnels: added = [] }: RequestFields): ValidTunnel[] {
  const tunnels: ValidTunnel[] = [];
  for (const tunnel of added) {
    if (tunnelViolation(tunnel) !== undefined) continue;
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
function stripTenantPrefix(tenant: string, id: string): string {
  return id.startsWith(`${tenant}:`) && id !== `${tenant}:` ? id.slice(tenant.length + 1) : id;
}

/** Too long, or with a character that must not be shown: a control character, a line break, a change of direction. */
function isInvalidText(text: string, maxLength: number): boolean {
  const points = Array.from(text, (character) => character.codePointAt(0) ?? 0);
  return (
    points.length > maxLength ||
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
