/** API servers and proxies that record what a client sends, to compare clients with each other. */
import { createServer as createHttpServer, type IncomingMessage, type RequestListener } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, TLSSocket } from 'node:tls';
import type { CertificateAuthority } from '../../control-plane/certificates.ts';

/** What one request shows about its client. */
export interface RecordedRequest {
  /** Name of the server that received it. */
  readonly server: string;
  /** Name that the client asked for in the TLS handshake; "" for none. */
  readonly serverName: string;
  readonly pathPrefix: string;
  readonly namespace: string;
  readonly authorization: string;
  /** SHA-256 of the client certificate; "" without one. */
  readonly certificate: string;
  /** Headers that begin with `impersonate-`, in lower case and sorted. */
  readonly impersonation: readonly string[];
}

/** A server on a loopback port. */
export interface LoopbackServer {
  readonly port: number;
  close(): void;
}

/**
 * Starts an API server that answers lists and token requests.
 *
 * @param name the `server` of its requests
 * @param authority signs the server's certificate; undefined for plain HTTP
 */
export async function startRecordedApi(
  name: string,
  requests: RecordedRequest[],
  authority?: CertificateAuthority,
): Promise<LoopbackServer> {
  const listener: RequestListener = (request, response) => {
    requests.push(recordRequest(name, request));
    request.resume();
    const isToken = request.method === 'POST';
    response.writeHead(isToken ? 201 : 200, { 'content-type': 'application/json' });
    response.end(
      JSON.stringify(
        isToken
          ? { kind: 'TokenRequest', apiVersion: 'authentication.k8s.io/v1', status: { token: 't' } }
          : { kind: 'List', apiVersion: 'v1', metadata: { resourceVersion: '1' }, items: [] },
      ),
    );
  };
  if (authority === undefined) return await listen(createHttpServer(listener));
  const { cert, key } = authority.issue({
    addresses: ['127.0.0.1'],
    dnsNames: ['api.cluster.test', 'localhost'],
    usage: 'server',
  });
  return await listen(
    createHttpsServer({ cert, key, requestCert: true, rejectUnauthorized: false }, listener),
  );
}

function recordRequest(server: string, request: IncomingMessage): RecordedRequest {
  const { socket, headers, rawHeaders, url = '' } = request;
  const impersonation = rawHeaders.flatMap((header, i) =>
    i % 2 === 0 && header.toLowerCase().startsWith('impersonate-')
      ? [`${header.toLowerCase()}: ${rawHeaders[i + 1]}`]
      : [],
  );
  const tls = socket instanceof TLSSocket ? socket : undefined;
  const [, pathPrefix = '', namespace = ''] = /^(.*?)\/apis?\/.*\/namespaces\/([^/]+)\//.exec(url) ?? [];
  return {
    server,
    serverName: (tls as { servername?: string | false } | undefined)?.servername || '',
    pathPrefix: pathPrefix.replace(/^http:\/\/[^/]+/, ''),
    namespace,
    authorization: headers.authorization ?? '',
    certificate: tls?.getPeerCertificate().fingerprint256 ?? '',
    impersonation: impersonation.toSorted(),
  };
}

/** A proxy, and what its clients asked for. */
export interface RecordedProxy extends LoopbackServer {
  /** Method, target and credentials of each connection, such as `CONNECT api.cluster.test:443`. */
  readonly connections: readonly string[];
}

/**
 * Starts an HTTP proxy that connects each client to the port, whatever host it asks for: only the proxy resolves names.
 *
 * @param authority signs the proxy's certificate; undefined for plain HTTP
 */
export async function startHttpProxy(port: number, authority?: CertificateAuthority): Promise<RecordedProxy> {
  const connections: string[] = [];
  const accept = (client: Socket): void => {
    client.on('error', () => undefined);
    client.once('data', (head: Buffer) => {
      const [requestLine = '', ...lines] = head.toString('latin1').split('\r\n');
      const [method = '', target = ''] = requestLine.split(' ');
      const credentials = lines.find((line) => /^proxy-authorization:/i.test(line)) ?? '';
      connections.push(`${method} ${target}${credentials.replace(/^[^:]+:/, ' with')}`);
      const server = connect(port, '127.0.0.1');
      server.on('error', () => client.destroy());
      if (method === 'CONNECT') client.write('HTTP/1.1 200 OK\r\n\r\n');
      else server.write(head);
      client.pipe(server).pipe(client);
    });
  };
  if (authority === undefined) return { ...(await listen(createServer(accept))), connections };
  const { cert, key } = authority.issue({ addresses: ['127.0.0.1'], usage: 'server' });
  return { ...(await listen(createTlsServer({ cert, key }, accept))), connections };
}

/** Starts a SOCKS 5 proxy (RFC 1928) that connects each client to the port. */
export async function startSocksProxy(port: number): Promise<RecordedProxy> {
  const connections: string[] = [];
  const server = createServer((client) => {
    client.on('error', () => undefined);
    client.once('data', () => {
      client.write(Buffer.from([5, 0]));
      client.once('data', (request: Buffer) => {
        const isName = request[3] === 3;
        const host = isName
          ? request.toString('latin1', 5, 5 + (request[4] ?? 0))
          : request.subarray(4, 8).join('.');
        connections.push(
          `${isName ? 'name' : 'address'} ${host}:${request.readUInt16BE(request.length - 2)}`,
        );
        const upstream = connect(port, '127.0.0.1');
        upstream.on('error', () => client.destroy());
        client.write(Buffer.from([5, 0, 0, 1, 0, 0, 0, 0, 0, 0]));
        client.pipe(upstream).pipe(client);
      });
    });
  });
  return { ...(await listen(server)), connections };
}

async function listen(server: Server): Promise<LoopbackServer> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  // A client that rejects the certificate ends the handshake.
  server.on('tlsClientError', () => undefined);
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    close() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}
