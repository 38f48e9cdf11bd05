/**
 * A model of the objects that must exist after any sequence of reports, connects, disconnects and restarts. It implements
 * the rules of the protocol as simply as possible, with lists and loops, and shares no code with the operator.
 */
import type { RequestFields, TunnelFields } from './wire.ts';

/** An object that must exist, with these values. */
export interface ModelObject {
  readonly cluster: string;
  readonly id: string;
  readonly name: string;
  readonly tenantID: string;
  readonly clusterID: string;
  readonly nodeID: string;
  /** As reported; undefined if it is not reported, or not representable. */
  readonly createdAt: string | undefined;
  /** Changes when the tunnel was removed for a moment, or is another one; only then may the object be another one. */
  readonly generation: number;
}

/** An object whose removal is held. */
export interface HeldObject extends ModelObject {
  readonly untilMs: number;
  /** False if it was being written when its removal was held, so that it may not exist. */
  readonly isCertain: boolean;
}

/** Returns whether a tunnel has an object now; `maybe` while it is being written. */
export type ObjectLookup = (cluster: string, id: string, name: string) => 'yes' | 'no' | 'maybe';

/** A stream of the model; created by `open`. */
export interface ModelStream {
  reporter: { readonly cluster: string; readonly id: string } | undefined;
  open: boolean;
}

/** The expected response to a report. */
export type ExpectedResponse =
  | { readonly kind: 'ack'; readonly nonce: string }
  /** Rejected because of `field`; the stream ends after it. */
  | { readonly kind: 'nack'; readonly nonce: string; readonly field: string }
  /** The stream has ended, or ends at this report because a newer stream is served. */
  | { readonly kind: 'nothing' };

/** Maximum lengths in characters, as in docs/spec; the limit of 128 for an identity excludes the tenant prefix. */
const MAX_NAME_LENGTH = 512;
const MAX_IDENTITY_LENGTH = 128;
const MAX_REPORTER_LENGTH = 256;

/** The expected behavior of the operator. Uses only lists, so it is slow. */
export class Model {
  /** The objects that must exist, in the order of their creation. */
  objects: readonly ModelObject[] = [];
  /** The objects that the last full push of their reporter lacks and that must be kept for now. */
  held: readonly HeldObject[] = [];
  readonly #onInvalid: 'skip' | 'nack';
  /** How long every removal of a full push is held; 0: not at all. */
  readonly #holdMs: number;
  #nowMs = 0;
  #streams: ModelStream[] = [];
  #generations = 0;
  /** Since the start of the operator: the reporters that have sent a full push, and the names that each has reported. */
  #complete: string[] = [];
  #mentioned: string[] = [];
  #listed = true;

  constructor(onInvalid: 'skip' | 'nack', holdMs = 0) {
    this.#onInvalid = onInvalid;
    this.#holdMs = holdMs;
  }

  /** Lets time pass. */
  advance(ms: number): void {
    this.#nowMs += ms;
    this.held = this.held.filter(({ untilMs }) => untilMs > this.#nowMs);
  }

  open(): ModelStream {
    const stream: ModelStream = { reporter: undefined, open: true };
    this.#streams.push(stream);
    return stream;
  }

  /** Ends the stream, by either side; its tunnels remain. */
  end(stream: ModelStream): void {
    stream.open = false;
  }

  /**
   * Restarts the operator: every stream ends, and only the objects of each reporter are known.
   *
   * @param existing the existing objects after a crash; undefined after a graceful stop, which has written everything
   */
  restart(existing?: readonly Omit<ModelObject, 'generation'>[]): void {
    for (const stream of this.#streams) stream.open = false;
    this.#streams = [];
    this.#complete = [];
    this.#mentioned = [];
    this.#listed = false;
    this.held = [];
    this.objects =
      existing?.map((object) => ({ ...object, generation: this.#nextGeneration() })) ?? this.objects;
  }

  /** The number of reporters with a served stream. */
  get connectedReporters(): number {
    return this.#served().length;
  }

  /** Records that the operator has listed the objects that existed when it started. */
  markListed(): void {
    this.#listed = true;
  }

  /** Applies a report of a stream, and returns the expected response. */
  report(stream: ModelStream, report: RequestFields, objectOf: ObjectLookup = () => 'no'): ExpectedResponse {
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
    if (report.full_push === true) this.#applyFullPush(cluster, id, report, objectOf);
    else this.#applyDelta(cluster, id, report);
    return { kind: 'ack', nonce };
  }

  /** Starts a new generation of all tunnels of a reporter, because it is unknown which of its reports were read. */
  renewGenerations(cluster: string, id: string): void {
    this.objects = this.objects.map((object) =>
      object.cluster === cluster && object.id === id
        ? { ...object, generation: this.#nextGeneration() }
        : object,
    );
  }

  /** Ends all identified streams of a reporter except for the newest one, and returns whether `stream` is that one. */
  #newest(stream: ModelStream): boolean {
    const { id, cluster } = stream.reporter ?? {};
    const rivals = this.#served().filter(
      ({ reporter }) => reporter?.id === id && reporter?.cluster === cluster,
    );
    const newest = rivals.at(-1);
    for (const rival of rivals) rival.open = rival === newest;
    return stream === newest;
  }

  /** Returns the open and identified streams, in the order in which they were opened. */
  #served(): ModelStream[] {
    return this.#streams.filter(({ open, reporter }) => open && reporter !== undefined);
  }

  /** Identifies the reporter from the first report, which later reports must not change. Returns the invalid field. */
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

  /** Returns the first invalid field, if one is sufficient to reject the report. */
  #firstViolation(report: RequestFields): string | undefined {
    return this.#onInvalid === 'nack' ? violations(report)[0] : undefined;
  }

  /** Applies a full push, which is authoritative: the reporter has exactly the listed tunnels. */
  #applyFullPush(cluster: string, id: string, report: RequestFields, objectOf: ObjectLookup): void {
    const before = this.objects.filter((object) => object.cluster === cluster && object.id === id);
    this.objects = this.objects.filter((object) => !(object.cluster === cluster && object.id === id));
    const tunnels = validTunnels(report);
    for (const tunnel of tunnels) {
      this.#upsert(
        cluster,
        id,
        tunnel,
        before.find((object) => object.name === tunnel.name) ?? this.#takeHeld(cluster, id, tunnel.name),
      );
    }
    for (const object of before) {
      const exists = objectOf(cluster, id, object.name);
      if (this.#holdMs === 0 || exists === 'no' || tunnels.some(({ name }) => name === object.name)) continue;
      const untilMs = this.#nowMs + this.#holdMs;
      this.held = [...this.held, { ...object, untilMs, isCertain: exists === 'yes' }];
    }
    this.#complete.push(JSON.stringify([cluster, id]));
  }

  /** Applies a delta. Per name, count after = count before + adds - removals, limited to 0 and 1. */
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
      const held = this.#takeHeld(cluster, id, name);
      this.#mentioned.push(JSON.stringify([cluster, id, name]));
      const after = Math.min(1, Math.max(0, (before === undefined ? 0 : 1) + adds.length - removals.length));
      const last = adds.at(-1);
      if (after === 0) this.objects = this.objects.filter((object) => object !== before);
      else if (last !== undefined) this.#upsert(cluster, id, last, before ?? held);
    }
  }

  /** Ends the hold of a tunnel, and returns its object. */
  #takeHeld(cluster: string, id: string, name: string): HeldObject | undefined {
    const held = this.held.find(
      (object) => object.cluster === cluster && object.id === id && object.name === name,
    );
    this.held = this.held.filter((object) => object !== held);
    return held;
  }

  /**
   * Returns whether a name with as many adds as removals is ambiguous: before the objects are listed, the tunnel may have
   * flapped, or may have been added and removed. The state is kept until the reporter reports it unambiguously.
   */
  #isAmbiguous(cluster: string, id: string, name: string): boolean {
    return (
      !this.#listed &&
      !this.#complete.includes(JSON.stringify([cluster, id])) &&
      !this.#mentioned.includes(JSON.stringify([cluster, id, name]))
    );
  }

  /** Adds or updates a tunnel with its last entry. */
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

/** Returns the field paths of all invalid entries in the lists of a report, in their order. */
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

/** Returns the path of the invalid field of a tunnel; undefined if the tunnel is valid. */
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

/** Returns whether a name is invalid; the same rules apply to removed names. */
function isInvalidName(name: string): boolean {
  return name === '' || isInvalidText(name, MAX_NAME_LENGTH);
}

/** Returns the valid tunnels of a report. */
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

/** Removes the tenant from `tenant:id`, which is used with tenant isolation; the limit applies to the ID. */
function stripTenantPrefix(tenant: string, id: string): string {
  return id.startsWith(`${tenant}:`) && id !== `${tenant}:` ? id.slice(tenant.length + 1) : id;
}

/** Returns whether a text is too long, or contains a control character, a line break or a change of direction. */
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

/** Returns the canonical UTC text of a time, with 0, 3, 6 or 9 digits; undefined outside of the years 1 to 9999. */
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
