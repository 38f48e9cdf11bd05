import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import type { StreamStatus } from '../../src/grpc/report-message.ts';
import { reporterIdentity } from '../../src/grpc/reporter-identity.ts';
import { dialReportingService, type ReportingConnection } from '../../src/grpc/reporting-client.ts';
import { createCertificateAuthority } from '../../control-plane/certificates.ts';

describe('A connection to the reporting service', () => {
  const authority = createCertificateAuthority('ours');
  const [one, other] = [authority.issue({ usage: 'client' }), authority.issue({ usage: 'client' })];
  const valid = { 'ca.pem': authority.ca, 'tls.crt': one.cert, 'tls.key': one.key, token: 'a.b.c' };
  let folder: string;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'reporting-client-'));
    for (const [name, content] of Object.entries(valid)) await writeFile(join(folder, name), content);
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  function endOfStream(connection: ReportingConnection): Promise<StreamStatus> {
    return new Promise((resolve) => {
      connection.openStream({
        onResponse() {},
        onEnd: (ended) => {
          // Without the connection, the next stream reads the files again.
          connection.reset();
          resolve(ended);
        },
      });
    });
  }

  for (const { what, name, content, message } of [
    {
      what: 'a key of another certificate',
      name: 'tls.key',
      content: other.key,
      message: /key values mismatch/,
    },
    { what: 'half of a certificate', name: 'tls.crt', content: one.cert.slice(0, 300), message: /./ },
    { what: 'an empty key', name: 'tls.key', content: '', message: /./ },
    {
      what: 'a token that is not text',
      name: 'token',
      content: '\u0000\u0001',
      message: /illegal characters/,
    },
  ]) {
    it(`ends a stream while its files contain ${what}, and opens the next one with the files that follow`, async () => {
      const identity = reporterIdentity({
        caFile: join(folder, 'ca.pem'),
        certFile: join(folder, 'tls.crt'),
        keyFile: join(folder, 'tls.key'),
        tokenFile: join(folder, 'token'),
        serverName: undefined,
      });
      if (identity === undefined) throw new Error('no identity');
      // Nothing listens on this port.
      const connection = dialReportingService({ address: '127.0.0.1:1', identity });
      await writeFile(join(folder, name), content);
      const failed = await endOfStream(connection);
      expect(failed.code).to.equal(status.UNAVAILABLE);
      expect(failed.message).to.match(message).and.not.contain('ECONNREFUSED');
      await writeFile(join(folder, name), valid[name as keyof typeof valid]);
      expect((await endOfStream(connection)).message).to.contain('ECONNREFUSED');
      connection.close();
    });
  }
});
